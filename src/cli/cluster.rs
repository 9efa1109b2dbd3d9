//! `controller`: which cluster it runs in, by which service accounts are resolved.

use crate::controller::{ClusterIdentity, EksCluster};
use crate::policy::trust::Issuer;

/// Which cluster the controller runs in.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The EKS cluster that the operator runs in, in its own account: grants to service accounts are
    /// resolved by its Pod Identity associations first, then by their annotation.
    #[arg(long, env = "EKS_CLUSTER_NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    eks_cluster_name: Option<String>,
    /// The EKS cluster's region; absent: the one of the SDK's configuration (`AWS_REGION`).
    #[arg(long, env = "EKS_REGION", requires = "eks_cluster_name")]
    eks_region: Option<String>,
    /// The issuer of the cluster's service account tokens, such as
    /// `https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE`; absent: EKS is asked. Alone, service
    /// accounts are resolved by their annotation only.
    #[arg(long, env = "OIDC_ISSUER", value_parser = Issuer::parse)]
    oidc_issuer: Option<Issuer>,
}

impl From<Args> for Option<ClusterIdentity> {
    fn from(args: Args) -> Self {
        let region = args.eks_region;
        let eks = args
            .eks_cluster_name
            .map(|name| EksCluster { name, region });
        let known = eks.is_some() || args.oidc_issuer.is_some();
        known.then_some(ClusterIdentity {
            eks,
            issuer: args.oidc_issuer,
        })
    }
}
