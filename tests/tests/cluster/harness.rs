//! The control plane itself: before anything is concluded from it.
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use plimsoll_cluster::{Cluster, NO_KUBELETS, Options, Place, User};

/// The client of a user.
pub(super) async fn client(cluster: &Cluster, user: &User) -> Client {
    let file = Kubeconfig::read_from(cluster.kubeconfig(user, Place::Here).unwrap()).unwrap();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

fn node(name: &str) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(name.to_owned());
    node
}

#[tokio::test]
async fn an_api_server_that_was_stopped_has_its_data_and_its_users() {
    let options = Options { nodes: vec!["n1".into()], ..Options::from_env().unwrap() };
    let mut cluster = Cluster::start(options).unwrap();
    let kubelet = client(&cluster, &User::Node("n1".into())).await;
    Api::all(kubelet.clone()).create(&PostParams::default(), &node("n1")).await.unwrap();
    cluster.stop_api_server();
    Api::<Node>::all(kubelet.clone()).get("n1").await.unwrap_err();
    cluster.start_api_server().unwrap();
    Api::<Node>::all(kubelet.clone()).get("n1").await.unwrap();
    let other = Api::all(kubelet).create(&PostParams::default(), &node("n2")).await.unwrap_err();
    assert!(other.to_string().contains("not allowed to modify node"), "{other}");
}

#[tokio::test]
async fn controllers_make_service_accounts_and_these_have_no_rights_of_their_own() {
    let options = Options { controllers: Some(NO_KUBELETS), scheduler: true, ..Options::from_env().unwrap() };
    let cluster = Cluster::start(options).unwrap();
    let user = User::ServiceAccount("default".into(), "default".into());
    let pod = client(&cluster, &user).await;
    let refused = Api::<Namespace>::all(pod).list(&ListParams::default()).await.unwrap_err();
    assert!(refused.to_string().contains("system:serviceaccount:default:default"), "{refused}");
}
