//! `rowseal audit verify`: with public keys only.
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::json;

use super::super::connect::{self, Control};
use super::super::{Context, Failure};
use super::prove;
use crate::audit::{self, Checkpoint, Head, ProofError, VerifierKey};
use crate::keys::registry::KeptCheckpoint;

#[derive(Args)]
pub(in super::super) struct Verify {
    /// The directories of logs; default the one that the policy file names.
    #[arg(value_name = "DIRECTORY")]
    directories: Vec<PathBuf>,
    /// Another way to name a directory.
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// The public key of a log, as `audit key` printed it; may be given for several logs. Without it, the key beside the log
    /// or in the registry is believed.
    #[arg(long, value_name = "VERIFIER_KEY")]
    key: Vec<VerifierKey>,
    /// What the log must go on from: a checkpoint that was kept, or all that proxies left in the registry.
    #[arg(long, value_name = "registry|FILE")]
    against: Vec<String>,
    /// Do not ask for the logs of other proxies that the registry knows.
    #[arg(long)]
    allow_missing: bool,
    /// Check a proof of `audit prove`, or those of `audit export`, instead of a log. Needs --key.
    #[arg(long, value_name = "FILE|DIRECTORY", conflicts_with_all = ["against", "directory", "directories"])]
    proof: Option<PathBuf>,
    /// Of a log of an earlier release: a head that an earlier verify gave.
    #[arg(long, value_name = "NUMBER:HASH", conflicts_with_all = ["against", "key"])]
    head: Option<Head>,
}

pub(super) fn run(verify: Verify, context: &Context) -> Result<(), Failure> {
    if let Some(path) = &verify.proof {
        return proofs(path, &verify.key, context);
    }
    let mut directories = verify.directories;
    directories.extend(verify.directory);
    if let Some(head) = &verify.head {
        let given = directories.pop();
        if !directories.is_empty() {
            return Err(Failure::Usage("--head is of one log: give one directory".to_owned()));
        }
        return chain(&super::directory(given, context)?, Some(head), context);
    }
    let directories = super::directories(directories, context)?;
    let mut against = Against::read(&verify.against, context)?;
    for directory in &directories {
        if audit::verifier(directory).is_err() && verify.key.is_empty() && verify.against.is_empty() {
            chain(directory, None, context)?;
        } else {
            one(directory, &verify.key, &mut against, context)?;
        }
    }
    if let Some(key) = verify.key.iter().find(|key| !against.seen.iter().any(|name| name == key.name())) {
        return Err(anyhow!("{}: no directory has the log of this key", key.name()).into());
    }
    against.nothing_left(verify.allow_missing, context)
}

/// The log of an earlier release that no newer one has gone on from.
fn chain(directory: &Path, head: Option<&Head>, context: &Context) -> Result<(), Failure> {
    let head = audit::verify_chain(directory, head)?;
    let text = format!(
        "{} records of an earlier release, none changed, removed, inserted or moved; nothing is signed\nhead {head}",
        head.seq
    );
    Ok(context.output.write(text, &json!({ "records": head.seq, "head": head.to_string() }))?)
}

fn one(directory: &Path, keys: &[VerifierKey], against: &mut Against, context: &Context) -> Result<(), Failure> {
    let name = directory.display();
    let beside = audit::verifier(directory).with_context(|| format!("{name}"))?;
    let given = keys.iter().find(|key| key.name() == beside.name());
    let (key, kept) = against.of(beside.name(), given)?;
    let verified = audit::verify(directory, key.as_ref(), &kept).with_context(|| format!("{name}"))?;
    let checkpoint = &verified.checkpoint;
    let believed = if key.is_some() { "" } else { " (the key beside the log was believed: give --key)" };
    let text = format!(
        "{}: {} records signed, none changed, removed, inserted, moved or cut off; {} not signed yet; {} half-written \
         lines set aside{}\nkey {}{believed}\nroot {}",
        checkpoint.origin,
        checkpoint.size,
        verified.unsigned,
        verified.set_aside,
        verified.chain.map_or_else(String::new, |head| format!("; {} records of an earlier release", head.seq)),
        verified.verifier,
        checkpoint.root.encode()
    );
    let json = json!({
        "log": checkpoint.origin, "records": checkpoint.size, "root": checkpoint.root.encode(),
        "unsigned": verified.unsigned, "set_aside": verified.set_aside, "verifier": verified.verifier.to_string(),
        "compared": kept.len(), "earlier_release": verified.chain.map_or(0, |head| head.seq),
    });
    Ok(context.output.write(text, &json)?)
}

/// What was kept elsewhere of the logs.
struct Against {
    /// Whether the registry was asked, which then must know each log.
    is_registry: bool,
    kept: Vec<KeptCheckpoint>,
    /// Logs of which a directory was given.
    seen: Vec<String>,
}

impl Against {
    fn read(against: &[String], context: &Context) -> Result<Against, Failure> {
        let mut read = Against { is_registry: false, kept: Vec::new(), seen: Vec::new() };
        for what in against {
            if what == "registry" {
                read.is_registry = true;
                connect::block_on(read.read_registry(context))?;
                continue;
            }
            let note = std::fs::read_to_string(what).with_context(|| format!("{what:?} cannot be read"))?;
            let origin = Checkpoint::unverified(&note).ok_or_else(|| anyhow!("{what:?} is not a checkpoint"))?.origin;
            read.kept.push(KeptCheckpoint { origin, verifier: None, note });
        }
        Ok(read)
    }

    async fn read_registry(&mut self, context: &Context) -> Result<(), Failure> {
        let settings = context.settings()?;
        for database in context.databases(&settings)? {
            let registry = Control::of(&settings, database)?.registry().await?;
            self.kept.extend(registry.checkpoints().await?);
        }
        Ok(())
    }

    /// The key of a log and the checkpoints of it. A key that was given counts; what the registry says must agree.
    fn of(&mut self, name: &str, given: Option<&VerifierKey>) -> Result<(Option<VerifierKey>, Vec<String>), Failure> {
        self.seen.push(name.to_owned());
        let mut key = given.cloned();
        let (mut notes, mut is_known) = (Vec::new(), false);
        for kept in self.kept.iter().filter(|kept| kept.origin == name) {
            if let Some(verifier) = &kept.verifier {
                is_known = true;
                let verifier: VerifierKey = verifier.parse().context("a key in the registry")?;
                if key.get_or_insert_with(|| verifier.clone()) != &verifier {
                    return Err(anyhow!("{name}: the registry has another public key").into());
                }
            }
            notes.push(kept.note.clone());
        }
        if self.is_registry && !is_known {
            return Err(anyhow!("{name}: the registry does not know this log").into());
        }
        Ok((key, notes))
    }

    /// A log that was kept and no directory was given of is missing.
    fn nothing_left(self, is_allowed: bool, context: &Context) -> Result<(), Failure> {
        let mut missing: Vec<_> = self.kept.into_iter().map(|kept| kept.origin).collect();
        missing.retain(|origin| !self.seen.contains(origin));
        missing.sort();
        missing.dedup();
        let names = missing.join(", ");
        if missing.is_empty() {
            Ok(())
        } else if is_allowed {
            let text = format!("not looked at: {names}");
            Ok(context.output.write(text, &json!({ "not_looked_at": missing }))?)
        } else {
            Err(anyhow!("missing logs: {names} (give all directories, or --allow-missing)").into())
        }
    }
}

fn proofs(path: &Path, keys: &[VerifierKey], context: &Context) -> Result<(), Failure> {
    if keys.is_empty() {
        return Err(Failure::Usage("--proof needs --key, the public key of the log".to_owned()));
    }
    let proofs = prove::read(path)?;
    for proof in &proofs {
        let origin = Checkpoint::unverified(&proof.checkpoint).map(|checkpoint| checkpoint.origin);
        let key = keys.iter().find(|key| Some(key.name()) == origin.as_deref()).unwrap_or(&keys[0]);
        let seq = proof.index.saturating_add(1);
        let (entry, checkpoint) = proof
            .check(key)
            .map_err(|error: ProofError| anyhow::Error::from(error).context(format!("record {seq}")))?;
        let text = format!("record {seq} of {} is among {} signed", checkpoint.origin, checkpoint.size);
        let json = json!({ "log": checkpoint.origin, "records": checkpoint.size, "record": entry });
        context.output.write(text, &json)?;
    }
    let text = format!("{} proofs hold", proofs.len());
    Ok(context.output.write(text, &json!({ "proofs": proofs.len() }))?)
}
