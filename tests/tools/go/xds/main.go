// The control plane that kubepass is compared with: go-control-plane's snapshot cache and server, as its own examples put them together.
//
//	xds-reference SOCKET
//
// serves aggregated discovery on a Unix socket, the same snapshot to every node. Each line of standard input names a file that holds
// length-delimited DeltaDiscoveryResponses, one for each type: what they add, change and remove becomes the next snapshot. On standard
// output it says in JSON lines when that was published, and each response and answer with its time.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protodelim"

	// The types that may stand in a resource.
	_ "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

const everyNode = "every node"

type oneSnapshot struct{}

func (oneSnapshot) ID(*core.Node) string { return everyNode }

// Says what happens, with the time in microseconds since the epoch.
type teller struct {
	lock sync.Mutex
	out  *json.Encoder
}

func (t *teller) tell(event map[string]any) {
	event["at_us"] = time.Now().UnixMicro()
	t.lock.Lock()
	defer t.lock.Unlock()
	_ = t.out.Encode(event)
}

// The resources in force, decoded, by type and name.
type resources map[string]map[string]types.Resource

func (r resources) apply(file string) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	reader := bufio.NewReader(in)
	options := protodelim.UnmarshalOptions{MaxSize: -1}
	for {
		change := &discovery.DeltaDiscoveryResponse{}
		if err := options.UnmarshalFrom(reader, change); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		ofType := r[change.TypeUrl]
		if ofType == nil {
			ofType = map[string]types.Resource{}
			r[change.TypeUrl] = ofType
		}
		for _, resource := range change.Resources {
			message, err := resource.Resource.UnmarshalNew()
			if err != nil {
				return fmt.Errorf("%s: %w", resource.Name, err)
			}
			ofType[resource.Name] = message
		}
		for _, name := range change.RemovedResources {
			delete(ofType, name)
		}
	}
}

func (r resources) snapshot(version int) (*cache.Snapshot, error) {
	byType := map[string][]types.Resource{}
	for kind, named := range r {
		for _, resource := range named {
			byType[kind] = append(byType[kind], resource)
		}
	}
	return cache.NewSnapshot(strconv.Itoa(version), byType)
}

func callbacks(teller *teller) server.Callbacks {
	return server.CallbackFuncs{
		DeltaStreamOpenFunc: func(_ context.Context, id int64, _ string) error {
			teller.tell(map[string]any{"event": "opened", "stream": id})
			return nil
		},
		StreamDeltaRequestFunc: func(id int64, request *discovery.DeltaDiscoveryRequest) error {
			if request.Node != nil {
				teller.tell(map[string]any{"event": "node", "stream": id, "node": request.Node.Id})
			}
			if request.ResponseNonce == "" {
				return nil
			}
			event := map[string]any{"event": "acknowledged", "stream": id, "type": request.TypeUrl, "nonce": request.ResponseNonce}
			if request.ErrorDetail != nil {
				event["event"], event["message"] = "refused", request.ErrorDetail.Message
			}
			teller.tell(event)
			return nil
		},
		StreamDeltaResponseFunc: func(id int64, _ *discovery.DeltaDiscoveryRequest, response *discovery.DeltaDiscoveryResponse) {
			teller.tell(map[string]any{"event": "pushed", "stream": id, "type": response.TypeUrl, "nonce": response.Nonce,
				"resources": len(response.Resources), "removed": len(response.RemovedResources)})
		},
	}
}

func run(socket string) error {
	ctx := context.Background()
	teller := &teller{out: json.NewEncoder(os.Stdout)}
	// Ordered responses, as an aggregated stream needs them.
	snapshots := cache.NewSnapshotCache(true, oneSnapshot{}, nil)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	service := grpc.NewServer(grpc.MaxConcurrentStreams(1_000_000), grpc.MaxRecvMsgSize(64<<20))
	discovery.RegisterAggregatedDiscoveryServiceServer(service, server.NewServer(ctx, snapshots, callbacks(teller)))
	go func() {
		if err := service.Serve(listener); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}()
	held := resources{}
	files := bufio.NewScanner(os.Stdin)
	for version := 1; files.Scan(); version++ {
		if err := held.apply(files.Text()); err != nil {
			return err
		}
		snapshot, err := held.snapshot(version)
		if err != nil {
			return err
		}
		teller.tell(map[string]any{"event": "published", "version": version})
		if err := snapshots.SetSnapshot(ctx, everyNode, snapshot); err != nil {
			return err
		}
		teller.tell(map[string]any{"event": "set", "version": version})
	}
	return files.Err()
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("xds-reference")
		return
	}
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: xds-reference SOCKET")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
