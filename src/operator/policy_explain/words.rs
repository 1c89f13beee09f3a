//! From words as one types them after `kubectl` to the request that kubectl would send, or a path as it is.

/// Method and path with query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
}

/// Plural, group, version, whether it lives in a namespace, and other names (kubectl's short and singular ones).
type BuiltIn = (&'static str, &'static str, &'static str, bool, &'static [&'static str]);

const BUILT_IN: &[BuiltIn] = &[
    ("apiservices", "apiregistration.k8s.io", "v1", false, &["apiservice"]),
    ("certificatesigningrequests", "certificates.k8s.io", "v1", false, &["certificatesigningrequest", "csr"]),
    ("clusterrolebindings", "rbac.authorization.k8s.io", "v1", false, &["clusterrolebinding"]),
    ("clusterroles", "rbac.authorization.k8s.io", "v1", false, &["clusterrole"]),
    ("configmaps", "", "v1", true, &["configmap", "cm"]),
    ("cronjobs", "batch", "v1", true, &["cronjob", "cj"]),
    ("customresourcedefinitions", "apiextensions.k8s.io", "v1", false, &["customresourcedefinition", "crd", "crds"]),
    ("daemonsets", "apps", "v1", true, &["daemonset", "ds"]),
    ("deployments", "apps", "v1", true, &["deployment", "deploy"]),
    ("endpoints", "", "v1", true, &["ep"]),
    ("endpointslices", "discovery.k8s.io", "v1", true, &["endpointslice"]),
    ("events", "", "v1", true, &["event", "ev"]),
    ("horizontalpodautoscalers", "autoscaling", "v2", true, &["horizontalpodautoscaler", "hpa"]),
    ("ingressclasses", "networking.k8s.io", "v1", false, &["ingressclass"]),
    ("ingresses", "networking.k8s.io", "v1", true, &["ingress", "ing"]),
    ("jobs", "batch", "v1", true, &["job"]),
    ("leases", "coordination.k8s.io", "v1", true, &["lease"]),
    ("limitranges", "", "v1", true, &["limitrange", "limits"]),
    ("mutatingwebhookconfigurations", "admissionregistration.k8s.io", "v1", false, &["mutatingwebhookconfiguration"]),
    ("namespaces", "", "v1", false, &["namespace", "ns"]),
    ("networkpolicies", "networking.k8s.io", "v1", true, &["networkpolicy", "netpol"]),
    ("nodes", "", "v1", false, &["node", "no"]),
    ("persistentvolumeclaims", "", "v1", true, &["persistentvolumeclaim", "pvc"]),
    ("persistentvolumes", "", "v1", false, &["persistentvolume", "pv"]),
    ("poddisruptionbudgets", "policy", "v1", true, &["poddisruptionbudget", "pdb"]),
    ("pods", "", "v1", true, &["pod", "po"]),
    ("priorityclasses", "scheduling.k8s.io", "v1", false, &["priorityclass", "pc"]),
    ("replicasets", "apps", "v1", true, &["replicaset", "rs"]),
    ("replicationcontrollers", "", "v1", true, &["replicationcontroller", "rc"]),
    ("resourcequotas", "", "v1", true, &["resourcequota", "quota"]),
    ("rolebindings", "rbac.authorization.k8s.io", "v1", true, &["rolebinding"]),
    ("roles", "rbac.authorization.k8s.io", "v1", true, &["role"]),
    ("secrets", "", "v1", true, &["secret"]),
    ("serviceaccounts", "", "v1", true, &["serviceaccount", "sa"]),
    ("services", "", "v1", true, &["service", "svc"]),
    ("statefulsets", "apps", "v1", true, &["statefulset", "sts"]),
    ("storageclasses", "storage.k8s.io", "v1", false, &["storageclass", "sc"]),
    ("validatingwebhookconfigurations", "admissionregistration.k8s.io", "v1", false, &["validatingwebhookconfiguration"]),
];

const PATH_HINT: &str = "a full path can be given instead, such as `/api/v1/namespaces/web/pods` or `DELETE /apis/apps/v1/...`";

/// # Errors
/// What is not understood, and what can be written instead.
pub(super) fn request(words: &[&str]) -> Result<Request, String> {
    // One argument in quotes is as good as several.
    let words: Vec<&str> = words.iter().flat_map(|word| word.split_ascii_whitespace()).collect();
    let words = words.strip_prefix(&["kubectl"]).unwrap_or(&words);
    match words {
        [] => Err(format!("say what is asked for, such as `get pods -n web`; {PATH_HINT}")),
        [path] if path.starts_with('/') => Ok(plain("GET", path)),
        [method, path] if path.starts_with('/') => Ok(plain(&method.to_ascii_uppercase(), path)),
        ["auth", "whoami"] => Ok(plain("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews")),
        ["auth", "can-i", ..] => Ok(plain("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")),
        ["api-resources" | "api-versions"] => Ok(plain("GET", "/api")),
        ["version"] => Ok(plain("GET", "/version")),
        [verb, rest @ ..] => kubectl(verb, &Arguments::read(rest)?),
    }
}

fn plain(method: &str, path: &str) -> Request {
    Request { method: method.to_owned(), path: path.to_owned() }
}

/// What follows the verb.
#[derive(Debug, Default)]
struct Arguments<'a> {
    names: Vec<&'a str>,
    namespace: Option<&'a str>,
    all_namespaces: bool,
    watch: bool,
    follow: bool,
    all: bool,
    subresource: Option<&'a str>,
}

impl<'a> Arguments<'a> {
    fn read(words: &[&'a str]) -> Result<Self, String> {
        let mut arguments = Self::default();
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            let (flag, value) = word.split_once('=').map_or((word, None), |(flag, value)| (flag, Some(value)));
            match flag {
                // What comes after is run in the container.
                "--" => break,
                "-n" | "--namespace" => arguments.namespace = Some(value.or_else(|| words.next()).ok_or("`-n` needs a namespace")?),
                "--subresource" => arguments.subresource = Some(value.or_else(|| words.next()).ok_or("`--subresource` needs a name")?),
                "-A" | "--all-namespaces" => arguments.all_namespaces = true,
                "-w" | "--watch" => arguments.watch = true,
                "-f" | "--follow" => arguments.follow = true,
                "--all" => arguments.all = true,
                "-it" | "-ti" | "-i" | "-t" => {}
                _ if word.starts_with('-') => return Err(format!("the option `{word}` is not known here; {PATH_HINT}")),
                _ => arguments.names.push(word),
            }
        }
        Ok(arguments)
    }

    fn namespace(&self) -> &'a str {
        self.namespace.unwrap_or("default")
    }

    /// `pods web-0`, `pod/web-0` or `pods`.
    fn resource_and_name(&self) -> Result<(Resource<'a>, Option<&'a str>), String> {
        match self.names.as_slice() {
            [] => Err("say which resource, such as `pods` or `deployment/web`".to_owned()),
            [one] => match one.split_once('/') {
                Some((resource, name)) => Ok((Resource::find(resource)?, Some(name))),
                None => Ok((Resource::find(one)?, None)),
            },
            [resource, name] => Ok((Resource::find(resource)?, Some(name))),
            [_, _, more, ..] => Err(format!("`{more}` is one name too many; ask for one thing at a time")),
        }
    }

    /// The pod of `exec`, `logs` and the like: `web-0` or `pod/web-0`.
    fn pod(&self) -> Result<&'a str, String> {
        let first = self.names.first().ok_or("say which pod")?;
        match first.split_once('/') {
            None => Ok(first),
            Some(("pod" | "pods" | "po", name)) => Ok(name),
            Some((kind, _)) => Err(format!("kubectl finds a pod of the {kind} first; name the pod")),
        }
    }
}

#[derive(Debug)]
struct Resource<'a> {
    plural: &'a str,
    group: &'a str,
    version: &'a str,
    namespaced: bool,
}

impl<'a> Resource<'a> {
    /// A built-in kind by any of its names, or `plural.version.group` as kubectl writes it.
    fn find(name: &'a str) -> Result<Self, String> {
        let lower = name.to_ascii_lowercase();
        if let Some(&(plural, group, version, namespaced, _)) =
            BUILT_IN.iter().find(|(plural, .., others)| *plural == lower || others.contains(&lower.as_str()))
        {
            return Ok(Self { plural, group, version, namespaced });
        }
        match name.split_once('.').and_then(|(plural, rest)| Some((plural, rest.split_once('.')?))) {
            Some((plural, (version, group))) if version.starts_with('v') => Ok(Self { plural, group, version, namespaced: true }),
            _ => Err(format!(
                "the resource `{name}` is not built in; write it as plural.version.group (widgets.v1.example.com), or {PATH_HINT}"
            )),
        }
    }

    /// `namespace` is left out where the resource has none.
    fn path(&self, namespace: Option<&str>, name: Option<&str>, subresource: Option<&str>) -> String {
        let root = if self.group.is_empty() { format!("/api/{}", self.version) } else { format!("/apis/{}/{}", self.group, self.version) };
        let namespace = namespace.filter(|_| self.namespaced).map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
        let tail: String = [name, subresource].into_iter().flatten().map(|part| format!("/{part}")).collect();
        format!("{root}{namespace}/{}{tail}", self.plural)
    }
}

fn kubectl(verb: &str, arguments: &Arguments<'_>) -> Result<Request, String> {
    let pod = |subresource: &str| -> Result<String, String> {
        Ok(Resource::find("pods")?.path(Some(arguments.namespace()), Some(arguments.pod()?), Some(subresource)))
    };
    match verb {
        // Newer clients ask for a WebSocket, which is a GET; policy sees the same verb either way.
        "exec" => Ok(plain("GET", &format!("{}?command=sh&stdout=true", pod("exec")?))),
        "attach" => Ok(plain("GET", &pod("attach")?)),
        "port-forward" | "portforward" => Ok(plain("GET", &pod("portforward")?)),
        "logs" | "log" if arguments.follow => Ok(plain("GET", &format!("{}?follow=true", pod("log")?))),
        "logs" | "log" => Ok(plain("GET", &pod("log")?)),
        "debug" => Ok(plain("PATCH", &pod("ephemeralcontainers")?)),
        "evict" => Ok(plain("POST", &pod("eviction")?)),
        "cp" => Err("`cp` is an `exec` in the pod; ask for `exec POD`".to_owned()),
        _ => resource_request(verb, arguments),
    }
}

fn resource_request(verb: &str, arguments: &Arguments<'_>) -> Result<Request, String> {
    let (method, subresource) = method(verb).ok_or_else(|| format!("the verb `{verb}` is not known here; {PATH_HINT}"))?;
    let (resource, name) = arguments.resource_and_name()?;
    let subresource = arguments.subresource.or(subresource);
    let namespace = (!arguments.all_namespaces).then(|| arguments.namespace());
    let needs_name = |name: Option<&str>| match name {
        None => Err(format!("`{verb}` needs a name, such as `{verb} {}/NAME`", resource.plural)),
        Some(_) => Ok(()),
    };
    match (verb, name) {
        ("create", _) => return Ok(plain(method, &resource.path(namespace, None, None))),
        ("watch", _) | ("get", _) if arguments.watch || verb == "watch" => {
            let selector = name.map(|name| format!("&fieldSelector=metadata.name%3D{name}")).unwrap_or_default();
            return Ok(plain(method, &format!("{}?watch=true{selector}", resource.path(namespace, None, None))));
        }
        ("get" | "list" | "deletecollection", None) => {}
        ("delete", None) if arguments.all => {}
        _ => needs_name(name)?,
    }
    Ok(plain(method, &resource.path(namespace, name, name.and(subresource))))
}

/// The method of a verb of kubectl or of RBAC, and the subresource that it uses.
fn method(verb: &str) -> Option<(&'static str, Option<&'static str>)> {
    Some(match verb {
        "get" | "list" | "watch" | "describe" => ("GET", None),
        "create" => ("POST", None),
        "update" | "replace" => ("PUT", None),
        "patch" | "apply" | "edit" | "label" | "annotate" | "rollout" => ("PATCH", None),
        "scale" => ("PATCH", Some("scale")),
        "delete" | "deletecollection" => ("DELETE", None),
        "proxy" => ("GET", Some("proxy")),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    #[track_caller]
    fn check(words: &str, expected: &str) {
        let words: Vec<&str> = words.split(' ').collect();
        let found = request(&words).map(|request| format!("{} {}", request.method, request.path));
        assert_eq!(found.as_deref(), Ok(expected), "{words:?}");
    }

    #[track_caller]
    fn check_refused(words: &str, part: &str) {
        let words: Vec<&str> = words.split(' ').collect();
        let fault = request(&words).map(|_| ()).unwrap_err();
        assert!(fault.contains(part), "{words:?}: {fault}");
    }

    #[test]
    fn words_become_the_request_of_kubectl() {
        check("get pods -n web", "GET /api/v1/namespaces/web/pods");
        check("kubectl get po -A", "GET /api/v1/pods");
        check("get pods", "GET /api/v1/namespaces/default/pods");
        check("get pod/web-0 --namespace=web", "GET /api/v1/namespaces/web/pods/web-0");
        check("get deploy web -n web", "GET /apis/apps/v1/namespaces/web/deployments/web");
        check("get pods -w -n web", "GET /api/v1/namespaces/web/pods?watch=true");
        check("watch nodes", "GET /api/v1/nodes?watch=true");
        check("get nodes n1", "GET /api/v1/nodes/n1");
        check("get ns web", "GET /api/v1/namespaces/web");
        check("delete deployment/web", "DELETE /apis/apps/v1/namespaces/default/deployments/web");
        check("delete pods --all -n web", "DELETE /api/v1/namespaces/web/pods");
        check("create configmap x -n web", "POST /api/v1/namespaces/web/configmaps");
        check("apply ingress/web -n web", "PATCH /apis/networking.k8s.io/v1/namespaces/web/ingresses/web");
        check("scale sts/web -n web", "PATCH /apis/apps/v1/namespaces/web/statefulsets/web/scale");
        check("exec web-0 -n web -- sh -c ls", "GET /api/v1/namespaces/web/pods/web-0/exec?command=sh&stdout=true");
        check("exec -it pod/web-0", "GET /api/v1/namespaces/default/pods/web-0/exec?command=sh&stdout=true");
        check("logs -f web-0", "GET /api/v1/namespaces/default/pods/web-0/log?follow=true");
        check("port-forward web-0 8080:80 -n web", "GET /api/v1/namespaces/web/pods/web-0/portforward");
        check("get widgets.v1.example.com -n web", "GET /apis/example.com/v1/namespaces/web/widgets");
        check("proxy svc/web -n web", "GET /api/v1/namespaces/web/services/web/proxy");
        check("auth whoami", "POST /apis/authentication.k8s.io/v1/selfsubjectreviews");
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        check("/api/v1/pods", "GET /api/v1/pods");
        check("delete /api/v1/pods?x=1", "DELETE /api/v1/pods?x=1");
        assert_eq!(request(&["POST /healthz"]), Ok(plain("POST", "/healthz")), "one argument in quotes");
    }

    #[test]
    fn what_is_not_understood_says_what_to_write() {
        check_refused("", "such as `get pods -n web`");
        check_refused("get widgets", "plural.version.group");
        check_refused("get widgets", "a full path can be given instead");
        check_refused("frobnicate pods", "the verb `frobnicate` is not known here");
        check_refused("delete pods", "needs a name");
        check_refused("delete pods -o wide", "the option `-o` is not known here");
        check_refused("get pods -n", "`-n` needs a namespace");
        check_refused("exec deployment/web", "name the pod");
        check_refused("get", "say which resource");
        check_refused("get pods a b", "one thing at a time");
    }

    #[test]
    fn no_name_stands_for_two_resources() {
        let mut names: Vec<&str> =
            BUILT_IN.iter().flat_map(|(plural, .., others)| std::iter::once(*plural).chain(others.iter().copied())).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
