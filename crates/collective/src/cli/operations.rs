//! The words of `operation`.

use clap::{Args, Subcommand};

use super::At;

#[derive(Subcommand)]
pub enum Operations {
    /// List them, the oldest first: those that are not over, and for a day those that are
    List {
        /// Of this instance
        #[arg(long, value_name = "NAME")]
        instance: Option<String>,
        /// Of this project
        #[arg(long, value_name = "PROJECT")]
        project: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// Show one: who asked, how far it is, what came of it
    Show(OneOperation),
    /// Call one off: what nobody has begun is not done, and who is on the way to another host stays
    Cancel(OneOperation),
}

#[derive(Args)]
pub struct OneOperation {
    /// Its id, as `collective operation list` shows it; or an instance's name: what is asked of that last
    #[arg(value_name = "ID|NAME")]
    pub operation: String,
    #[command(flatten)]
    pub at: At,
}
