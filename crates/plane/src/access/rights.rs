//! What a role is made of.

use api::Role;

/// One thing that somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// See what is there.
    See,
    /// Make instances, and change one's own.
    Own,
    /// Change everybody's; everywhere: hosts.
    Operate,
    /// Say who may do what.
    Manage,
    /// Read who did what.
    Audit,
}

impl Right {
    pub const ALL: [Self; 5] = [Self::See, Self::Own, Self::Operate, Self::Manage, Self::Audit];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::See => "see",
            Self::Own => "own",
            Self::Operate => "operate",
            Self::Manage => "manage",
            Self::Audit => "audit",
        }
    }
}

/// A set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights(u8);

impl Rights {
    /// Those that change nothing.
    pub const READING: Self = Self(1 << Right::See as u8 | 1 << Right::Audit as u8);

    /// What a role allows.
    pub fn of(role: Role) -> Self {
        let rights: &[Right] = match role {
            Role::Admin => &Right::ALL,
            Role::Operator => &[Right::See, Right::Own, Right::Operate],
            Role::User => &[Right::See, Right::Own],
            Role::Auditor => &[Right::See, Right::Audit],
        };
        Self(rights.iter().fold(0, |set, right| set | 1 << *right as u8))
    }

    pub fn has(self, right: Right) -> bool {
        self.0 & (1 << right as u8) != 0
    }

    /// Those that are in both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are in either.
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// By their words.
    pub fn words(self) -> Vec<String> {
        let has = Right::ALL.into_iter().filter(|right| self.has(*right));
        has.map(|right| right.as_str().to_owned()).collect()
    }
}
