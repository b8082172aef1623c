//! The words of the verbs about logging in where a plane decides.

use clap::{Args, Subcommand};

use super::{At, Role};

#[derive(Args)]
pub struct Login {
    /// What names the plane for certain: `collective plane` says it, and so does an older token's file
    #[arg(long, value_name = "FINGERPRINT")]
    pub fingerprint: Option<String>,
    /// Wait for the browser at this port of 127.0.0.1 [default: any free one]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "PORT")]
    pub port: u16,
    /// Wait at most this many seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub timeout: u64,
    /// The token counts in this project only
    #[arg(long, value_name = "PROJECT")]
    pub project: Option<String>,
    /// It allows no more than this role does
    #[arg(long, value_name = "ROLE", hide_possible_values = true)]
    pub role: Option<Role>,
    /// It changes nothing
    #[arg(long)]
    pub read_only: bool,
    /// How long it counts, at most 24h
    #[arg(long, default_value = "12h", value_name = "TIME")]
    pub expires: String,
    #[command(flatten)]
    pub at: LoginAt,
}

/// The plane, and where its token will be.
#[derive(Args)]
pub struct LoginAt {
    /// The plane, or several of one state: URL,URL [env: COLLECTIVE_PLANE] [default: https://127.0.0.1:7070]
    #[arg(long, value_name = "URL")]
    pub plane: Option<String>,
    /// The file that the token is written to, where other verbs read it
    /// [env: COLLECTIVE_PLANE_TOKEN_FILE] [default: plane.token in the state directory]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<std::path::PathBuf>,
}

#[derive(Subcommand)]
pub enum LoginRules {
    /// Let somebody in, as the provider knows them: as a user who was added, or for what a role allows
    Add(NewRule),
    /// List the rules
    List(At),
    /// Take a rule away; what it gave counts no longer
    Remove {
        /// Its id, as `collective login-rule list` shows it
        id: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Args)]
#[group(id = "who", required = true, multiple = false, args = ["subject", "email", "group"])]
pub struct NewRule {
    /// Whom the provider calls this: its claim `sub`
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// Whose e-mail address this is, when the provider has verified it
    #[arg(long, value_name = "ADDRESS")]
    pub email: Option<String>,
    /// Who is in this group
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// They are this user [default: one of their own, who is added when they log in]
    #[arg(long, value_name = "USER", conflicts_with = "group")]
    pub user: Option<String>,
    /// They may do this while a token of a login counts; without --project everywhere
    #[arg(long, value_name = "ROLE", hide_possible_values = true)]
    pub role: Option<Role>,
    /// In this project
    #[arg(long, value_name = "PROJECT", requires = "role")]
    pub project: Option<String>,
    #[command(flatten)]
    pub at: At,
}
