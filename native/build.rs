//! Gives the crate the digest of its sources, as `resolver/native_digest.py` reckons it.
//!
//! SHA-256 over `Cargo.lock`, `Cargo.toml`, `build.rs` and every file under `src` that is not
//! hidden, in the order of their paths: for each its path, a zero octet, its length in decimal, a
//! zero octet, and what it holds. A build that is not optimised gets none, so that it is refused.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use sha2::{Digest, Sha256};

const ALONE: [&str; 3] = ["Cargo.lock", "Cargo.toml", "build.rs"];
const TREE: &str = "src";

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the crate"));
    for path in ALONE.iter().chain([&TREE]) {
        println!("cargo:rerun-if-changed={path}");
    }
    if env::var("PROFILE").as_deref() == Ok("release") {
        println!("cargo:rustc-env=GTM_NATIVE_DIGEST={}", digest(&root)?);
    }
    Ok(())
}

fn digest(root: &Path) -> io::Result<String> {
    let mut paths: Vec<String> = ALONE.map(String::from).to_vec();
    list(root, TREE, &mut paths)?;
    paths.sort();
    let mut hash = Sha256::new();
    for path in paths {
        let held = fs::read(root.join(&path))?;
        hash.update(format!("{path}\0{}\0", held.len()));
        hash.update(held);
    }
    Ok(hash.finalize().iter().map(|octet| format!("{octet:02x}")).collect())
}

/// Adds the files under `folder`, named from `root` with slashes, but for hidden ones.
fn list(root: &Path, folder: &str, paths: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().into_string().expect("sources have names in UTF-8");
        let path = format!("{folder}/{name}");
        if name.starts_with('.') {
            continue;
        } else if entry.file_type()?.is_dir() {
            list(root, &path, paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}
