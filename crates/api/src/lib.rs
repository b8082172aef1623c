//! The only place where wire types live: what the CLI prints with `--json`, and what the CLI and
//! a shim say to each other.
//!
//! *Invariants.* Nothing here does I/O or decides anything; no other crate's internal type is
//! serialized. A field, once printed, keeps its name and unit; new ones may be added.

mod output;
mod shim;

pub use output::{
    AppliancePrint, AutoPrint, BuildPrint, CatalogPrint, CatalogVersion, ChannelPrint, CheckPrint,
    CheckpointPrint, ConfigPrint, CopyPrint, DoctorPrint, ErrorBody, ErrorPrint, ExecPrint,
    ExportDiskPrint, ExportPrint, ForkPrint, GcPrint, HistoryPrint, ImportPrint, InspectPrint,
    InstancePrint, MakerPrint, MirrorPrint, MountPrint, PortPrint, PropertyPrint, PublishPrint,
    RepairPrint, RepoInitPrint, RepoStatsPrint, ScrubPrint, SignedPrint, StartPrint, StatePrint,
    TracePrint, UndoPrint, UpdatePrint, UpdatesPrint, VolumePrint, WarmPrint,
};
pub use shim::{ExecOutcome, Reply, Request, StartReport, Status};
