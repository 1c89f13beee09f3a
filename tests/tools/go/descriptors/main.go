// Writes the descriptors of the messages that kubepass sends to Envoy, and of all that they may hold, as a FileDescriptorSet to standard output.
// They stand in go-control-plane's generated packages, whose version is Envoy's. Of options only `sensitive` is kept: it says what nobody may be
// shown. `tests/tools/descriptors` writes src/xds/dump/descriptors.binpb with it.
package main

import (
	"fmt"
	"os"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"

	udpa "github.com/cncf/xds/go/udpa/annotations"
	admin "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	cel "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	otellog "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	injector "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/credential_injector/v3"
	authz "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	mutation "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	rbac "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	codec "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	proxyprotocol "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	inspector "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	manager "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbac "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	early "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	generic "github.com/envoyproxy/go-control-plane/envoy/extensions/http/injected_credentials/generic/v3"
	xff "github.com/envoyproxy/go-control-plane/envoy/extensions/http/original_ip_detection/xff/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	upstream "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
)

var roots = []proto.Message{
	// The resources.
	&cluster.Cluster{}, &endpoint.ClusterLoadAssignment{}, &listener.Listener{}, &route.RouteConfiguration{}, &route.ScopedRouteConfiguration{},
	&tls.Secret{}, &core.TypedExtensionConfig{},
	// What is packed into them.
	&cel.ExpressionFilter{}, &otellog.OpenTelemetryAccessLogConfig{}, &injector.CredentialInjector{}, &authz.ExtAuthz{}, &authz.ExtAuthzPerRoute{},
	&mutation.HeaderMutation{}, &mutation.HeaderMutationPerRoute{}, &rbac.RBAC{}, &router.Router{}, &codec.UpstreamCodec{},
	&proxyprotocol.ProxyProtocol{}, &inspector.TlsInspector{}, &manager.HttpConnectionManager{}, &networkrbac.RBAC{}, &early.HeaderMutation{},
	&generic.Generic{}, &xff.XffConfig{}, &tls.DownstreamTlsContext{}, &tls.UpstreamTlsContext{}, &upstream.HttpProtocolOptions{},
	// What stands in the place of the unknown.
	&structpb.Struct{},
	// The form of the whole.
	&admin.ConfigDump{}, &admin.ListenersConfigDump{}, &admin.ClustersConfigDump{}, &admin.RoutesConfigDump{}, &admin.ScopedRoutesConfigDump{},
	&admin.EndpointsConfigDump{}, &admin.SecretsConfigDump{}, &admin.EcdsConfigDump{},
}

// What is kept: messages and enums by name, their files by path, and which files each of these needs.
type kept struct {
	names map[protoreflect.FullName]bool
	files map[string]protoreflect.FileDescriptor
	needs map[string]map[string]bool
}

func (k *kept) file(file protoreflect.FileDescriptor) {
	if k.files[file.Path()] == nil {
		k.files[file.Path()] = file
		k.needs[file.Path()] = map[string]bool{}
	}
}

func (k *kept) need(file, other protoreflect.FileDescriptor) {
	k.file(other)
	if file.Path() != other.Path() {
		k.needs[file.Path()][other.Path()] = true
	}
}

// Keeps a message and all that it may hold.
func (k *kept) message(message protoreflect.MessageDescriptor) {
	if k.names[message.FullName()] {
		return
	}
	k.names[message.FullName()] = true
	file := message.ParentFile()
	k.file(file)
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if inner := field.Message(); inner != nil {
			k.need(file, inner.ParentFile())
			k.message(inner)
		}
		if enum := field.Enum(); enum != nil {
			k.need(file, enum.ParentFile())
			k.names[enum.FullName()] = true
		}
		if isSensitive(field.Options().(*descriptorpb.FieldOptions)) {
			k.need(file, udpa.E_Sensitive.TypeDescriptor().ParentFile())
		}
	}
}

func isSensitive(options *descriptorpb.FieldOptions) bool {
	return options != nil && proto.GetExtension(options, udpa.E_Sensitive).(bool)
}

// What of a file is kept.
func (k *kept) part(file protoreflect.FileDescriptor) *descriptorpb.FileDescriptorProto {
	whole := protodesc.ToFileDescriptorProto(file)
	part := &descriptorpb.FileDescriptorProto{Name: whole.Name, Package: whole.Package, Syntax: whole.Syntax}
	for path := range k.needs[file.Path()] {
		part.Dependency = append(part.Dependency, path)
	}
	slices.Sort(part.Dependency)
	name := protoreflect.FullName(whole.GetPackage())
	part.MessageType = k.messages(whole.MessageType, name)
	part.EnumType = k.enums(whole.EnumType, name)
	if file.Path() == udpa.E_Sensitive.TypeDescriptor().ParentFile().Path() {
		part.Extension = whole.Extension
	}
	return part
}

func (k *kept) messages(messages []*descriptorpb.DescriptorProto, parent protoreflect.FullName) (parts []*descriptorpb.DescriptorProto) {
	for _, message := range messages {
		name := parent.Append(protoreflect.Name(message.GetName()))
		part := &descriptorpb.DescriptorProto{
			Name:       message.Name,
			NestedType: k.messages(message.NestedType, name),
			EnumType:   k.enums(message.EnumType, name),
		}
		if k.names[name] {
			for _, oneof := range message.OneofDecl {
				part.OneofDecl = append(part.OneofDecl, &descriptorpb.OneofDescriptorProto{Name: oneof.Name})
			}
			for _, field := range message.Field {
				part.Field = append(part.Field, withoutOptions(field))
			}
			if message.GetOptions().GetMapEntry() {
				part.Options = &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}
			}
		} else if len(part.NestedType) == 0 && len(part.EnumType) == 0 {
			continue
		}
		parts = append(parts, part)
	}
	return parts
}

func withoutOptions(field *descriptorpb.FieldDescriptorProto) *descriptorpb.FieldDescriptorProto {
	sensitive := isSensitive(field.Options)
	field.Options, field.JsonName = nil, nil
	if sensitive {
		field.Options = &descriptorpb.FieldOptions{}
		proto.SetExtension(field.Options, udpa.E_Sensitive, true)
	}
	return field
}

func (k *kept) enums(enums []*descriptorpb.EnumDescriptorProto, parent protoreflect.FullName) (parts []*descriptorpb.EnumDescriptorProto) {
	for _, enum := range enums {
		if !k.names[parent.Append(protoreflect.Name(enum.GetName()))] {
			continue
		}
		part := &descriptorpb.EnumDescriptorProto{Name: enum.Name}
		for _, value := range enum.Value {
			part.Value = append(part.Value, &descriptorpb.EnumValueDescriptorProto{Name: value.Name, Number: value.Number})
		}
		if enum.GetOptions().GetAllowAlias() {
			part.Options = &descriptorpb.EnumOptions{AllowAlias: proto.Bool(true)}
		}
		parts = append(parts, part)
	}
	return parts
}

// The message that `sensitive` extends, with nothing of its own.
func options() *descriptorpb.FileDescriptorProto {
	sensitive := udpa.E_Sensitive.TypeDescriptor()
	extended := sensitive.ContainingMessage()
	number := int32(sensitive.Number())
	return &descriptorpb.FileDescriptorProto{
		Name:    proto.String(extended.ParentFile().Path()),
		Package: proto.String(string(extended.ParentFile().Package())),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name:           proto.String(string(extended.Name())),
			ExtensionRange: []*descriptorpb.DescriptorProto_ExtensionRange{{Start: proto.Int32(number), End: proto.Int32(number + 1)}},
		}},
	}
}

func run() error {
	k := &kept{map[protoreflect.FullName]bool{}, map[string]protoreflect.FileDescriptor{}, map[string]map[string]bool{}}
	for _, root := range roots {
		k.message(root.ProtoReflect().Descriptor())
	}
	sensitive := udpa.E_Sensitive.TypeDescriptor()
	k.need(sensitive.ParentFile(), sensitive.ContainingMessage().ParentFile())

	// A file stands after those that it needs.
	set, added := &descriptorpb.FileDescriptorSet{}, map[string]bool{}
	var add func(path string)
	add = func(path string) {
		if added[path] {
			return
		}
		added[path] = true
		part := options()
		if path != part.GetName() {
			part = k.part(k.files[path])
		}
		for _, needed := range part.Dependency {
			add(needed)
		}
		set.File = append(set.File, part)
	}
	paths := []string{}
	for path := range k.files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		add(path)
	}
	bytes, err := proto.MarshalOptions{Deterministic: true}.Marshal(set)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(bytes)
	return err
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
