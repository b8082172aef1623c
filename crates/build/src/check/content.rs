//! Words that several parts of a recipe use: paths, packages, suites, files.

use std::collections::BTreeSet;

use serde_saphyr::Spanned;

use super::{Check, Checked, placed};
use crate::document::FileDoc;
use crate::place::{GuestPath, Placed, RelativePath};
use crate::recipe::{FileContent, FileEntry};

const PACKAGES_MAX: usize = 512;
const FILES_MAX: usize = 1000;

impl Check<'_> {
    pub(super) fn guest_path(&self, path: &Spanned<String>) -> Checked<GuestPath> {
        GuestPath::new(&path.value).ok_or_else(|| {
            let message = format!("{:?} is not a path in the guest", path.value);
            self.wrong(
                path,
                message,
                "write it absolute and without . or .., for example /etc/motd",
            )
        })
    }

    pub(super) fn relative(&self, path: &Spanned<String>) -> Checked<Placed<RelativePath>> {
        match RelativePath::new(&path.value) {
            Some(relative) => Ok(placed(path, relative)),
            None => Err(self.wrong(
                path,
                format!("{:?} leaves the recipe's folder", path.value),
                "copy the file into the recipe's folder and name it relative to that",
            )),
        }
    }

    pub(super) fn suite(&self, suite: &Spanned<String>) -> Checked<String> {
        let text = &suite.value;
        let good = (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && text.as_bytes()[0].is_ascii_lowercase();
        if good {
            Ok(text.clone())
        } else {
            Err(self.wrong(suite, format!("{text:?} is not a suite"), "for example: bookworm"))
        }
    }

    pub(super) fn package(&self, package: &Spanned<String>) -> Checked<String> {
        let text = &package.value;
        let good = (2..=128).contains(&text.len())
            && text.as_bytes()[0].is_ascii_alphanumeric()
            // apt reads a trailing minus as "remove".
            && !text.ends_with('-')
            && text.bytes().all(|b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b)
            });
        if good {
            Ok(text.clone())
        } else {
            let message = format!("{text:?} is not the name of a Debian package");
            Err(self.wrong(package, message, "use the package's name alone, without a version"))
        }
    }

    pub(super) fn packages(&self, list: &[Spanned<String>]) -> Checked<Vec<String>> {
        self.count(list, PACKAGES_MAX, "packages")?;
        list.iter().map(|package| self.package(package)).collect()
    }

    pub(super) fn files(&self, list: &[Spanned<FileDoc>]) -> Checked<Vec<FileEntry>> {
        self.count(list, FILES_MAX, "files")?;
        let mut seen = BTreeSet::new();
        let mut files = Vec::new();
        for file in list {
            let path = self.guest_path(&file.value.path)?;
            if !seen.insert(path.clone()) {
                let message = format!("{:?} is listed twice", path.as_str());
                return Err(self.wrong(&file.value.path, message, "keep one of them"));
            }
            let content = match (&file.value.from, &file.value.content) {
                (Some(from), None) => FileContent::From(self.relative(from)?),
                (None, Some(text)) => FileContent::Text(text.clone()),
                _ => {
                    let message = "a file needs exactly one of `from` and `content`";
                    let hint = "`from` copies a file of the recipe's folder, `content` is the text";
                    return Err(self.wrong(file, message, hint));
                }
            };
            let mode = match &file.value.mode {
                None => None,
                Some(mode) => Some(self.mode(mode)?),
            };
            files.push(FileEntry { path, content, mode });
        }
        Ok(files)
    }

    pub(super) fn mode(&self, mode: &Spanned<String>) -> Checked<u32> {
        let text = &mode.value;
        let digits = (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        u32::from_str_radix(text, 8).ok().filter(|_| digits).ok_or_else(|| {
            self.wrong(mode, format!("{text:?} is not a file mode"), "for example: mode: \"0755\"")
        })
    }
}
