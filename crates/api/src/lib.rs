//! The only place where wire types live: what the CLI prints with `--json`, and what the CLI and
//! a shim say to each other, and what the plane and its callers do.
//!
//! *Invariants.* Nothing here does I/O or decides anything; no other crate's internal type is
//! serialized. A field, once printed, keeps its name and unit; new ones may be added.

mod access;
mod login;
mod makers;
mod meter;
mod operations;
mod output;
mod plane;
mod shim;

pub use access::{
    AuditEntry, AuditHead, AuditPrint, CallerPrint, MemberWish, NewToken, ProjectPrint, Quota,
    Role, TokenPrint, TokenWish, UserPrint, UserWish,
};
pub use login::{LoginClaim, LoginPrint, LoginRulePrint, LoginRuleWish, LoginWish, UserLogin};
pub use makers::{
    CatalogPrint, CatalogVersion, ChannelPrint, DelegatePrint, DiffPrint, FilePrint, MakerPrint,
    PackagePrint, PublishPrint, ReleasePrint, SignedPrint, UpdatePrint, UpdatesPrint,
};
pub use meter::{
    FAULT_BOUNDS_MS, FaultsPrint, MeterReply, MeterReport, ReadsPrint, RunPrint, UsagePrint,
};
pub use operations::{
    OPERATION_HEADER, OperationKind, OperationPrint, OperationState, OrderUnderWay,
};
pub use output::{
    AppliancePrint, ArrivingPrint, AutoPrint, BuildPrint, CheckPrint, CheckpointPrint, ConfigPrint,
    CopyPrint, DoctorPrint, ErrorBody, ErrorPrint, ExecPrint, ExportDiskPrint, ExportPrint,
    ForkPrint, GcPrint, HistoryPrint, ImportPrint, InspectPrint, InstancePrint, MirrorPrint,
    MountPrint, NetworkPrint, PortPrint, PropertyPrint, RepairPrint, RepoInitPrint, RepoStatsPrint,
    ScrubPrint, StartPrint, StatePrint, TracePrint, UndoPrint, VolumePrint, WarmPrint,
};
pub use plane::{
    BeatReply, CamePrint, ChoicePrint, EventPrint, HeadSeen, HostChange, HostIdentity, HostKey,
    HostPrint, HostReport, HostWish, InstanceChange, InstanceLoad, InstanceSeen, InstanceWish,
    LoadSeen, NETWORK_LABEL, OrderAct, OrderCost, OrderEnd, OrderPrint, OrderReport, OrdersKnown,
    OverloadPrint, PLANES_HEADER, PeerPrint, PeersPrint, PlacedPrint, PlanPrint, Problem, RELEASE,
    RELEASE_HEADER, ReliefPrint, RestartWish, StateWish, Trouble,
};
pub use shim::{Asked, ExecOutcome, Reply, Request, StartReport, Status};
