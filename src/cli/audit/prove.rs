//! `rowseal audit prove` and `export`: records with the proof that they are in the log.
use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::super::{Context, Failure};
use crate::audit::{self, Proof};

pub(super) fn prove(directory: &Path, seq: u64, context: &Context) -> Result<(), Failure> {
    let Some(proof) = audit::prove(directory, seq)? else {
        return Err(anyhow::anyhow!("no checkpoint tells of record {seq}").into());
    };
    let text = proof.encode();
    Ok(context.output.write(text.trim_end(), &json!({ "seq": seq, "proof": text }))?)
}

pub(super) fn export(directory: &Path, tenant: &str, to: &Path, context: &Context) -> Result<(), Failure> {
    let mut file = if to.is_dir() { None } else { Some(BufWriter::new(create(to)?)) };
    let mut count = 0u64;
    let unsigned = audit::export::<Failure>(directory, tenant, |proof| {
        count += 1;
        match &mut file {
            Some(file) => file.write_all(proof.encode().as_bytes())?,
            None => {
                create(&to.join(format!("{}.tlog-proof", proof.index + 1)))?.write_all(proof.encode().as_bytes())?
            }
        }
        Ok(())
    })?;
    if let Some(mut file) = file {
        file.flush()?;
    }
    let verifier = audit::verifier(directory)?.to_string();
    let text = format!(
        "{count} records of tenant {tenant:?} with their proofs; {unsigned} are not signed yet\n\
         to be checked with: rowseal audit verify --proof {} --key {verifier}",
        to.display()
    );
    let json = json!({ "tenant": tenant, "records": count, "unsigned": unsigned, "verifier": verifier });
    Ok(context.output.write(text, &json)?)
}

fn create(path: &Path) -> Result<std::fs::File, Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    Ok(file.with_context(|| format!("{} cannot be made", path.display()))?)
}

/// The proofs in a file, or in the files of a directory.
pub(super) fn read(path: &Path) -> Result<Vec<Proof>, Failure> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        files = path.read_dir()?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        files.retain(|path| path.extension().is_some_and(|extension| extension == "tlog-proof"));
        files.sort();
    }
    let mut proofs = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
        proofs.extend(Proof::decode_all(&text).with_context(|| format!("{}", file.display()))?);
    }
    Ok(proofs)
}
