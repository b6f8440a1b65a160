//! What the demo shows: the statements, and a sentence on each.
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Stage;
use super::psql::{Psql, side_by_side};

pub(super) const TABLE: &str = "CREATE TABLE customers (\n    account_id text NOT NULL,\n    email      rowseal.text,\n    \
    ssn        rowseal.text,\n    birth      rowseal.date,\n    note       text\n)";

const KEYS: &str = "SELECT tenant, provider, arn FROM rowseal.master_key WHERE tenant <> '_rowseal' ORDER BY tenant";
const INSERT: &str = "INSERT INTO customers (account_id, email, ssn, birth, note) VALUES\n    \
    ('acme',   'ada@example.com', '078-05-1120', '1990-12-10', 'first'),\n    \
    ('acme',   'eve@example.com', '457-55-5462', '1985-02-28', 'second'),\n    \
    ('globex', 'bob@example.com', '219-09-9999', '1979-07-01', 'third')";
const SELECT: &str = "SELECT account_id, email, ssn FROM customers ORDER BY note";
const SELECT_CELLS: &str = r"SELECT account_id,
    '\x' || left(encode(email, 'hex'), 8) || '…' || right(encode(email, 'hex'), 8) AS email,
    '\x' || left(encode(ssn, 'hex'), 8) || '…' || right(encode(ssn, 'hex'), 8) AS ssn
FROM customers ORDER BY note";
const CHANGE: &str = "UPDATE customers SET ssn = '111-22-3333' WHERE account_id = 'acme' AND email = 'eve@example.com'";
const SEARCH: &str =
    "SELECT account_id, email, ssn, birth FROM customers\nWHERE account_id = 'acme' AND email = 'eve@example.com'";
const REFUSED: &str = "SELECT email FROM customers WHERE ssn LIKE '078%'";
const PLAINTEXT: &str = "INSERT INTO customers (account_id, email) VALUES ('acme', 'mallory@example.com')";

/// What must be nowhere on the server's disk.
const VALUES: [&str; 4] = ["ada@example.com", "bob@example.com", "078-05-1120", "111-22-3333"];

/// Shows everything; a statement that does not do what the tour says is an error.
pub(super) async fn show(stage: &Stage) -> anyhow::Result<()> {
    let app = stage.app("app");
    let server = stage.server();
    say(&format!("RowSeal demo: a throw-away Postgres, {}, the proxy in between.\n", stage.keys))?;
    heading("1. Two tenants, acme and globex, each with a master key of its own; one table")?;
    statement("Postgres", KEYS, &server.run(KEYS).await?)?;
    statement("Postgres", TABLE, "CREATE TABLE")?;
    heading("2. The application talks to RowSeal as if it were Postgres")?;
    statement("RowSeal", INSERT, &app.run(INSERT).await?)?;
    heading("3. What the application sees, and what the table holds")?;
    panes(&app, &server).await?;
    heading("4. Equality works on sealed columns: nothing but a token of the value is compared")?;
    statement("RowSeal", CHANGE, &app.run(CHANGE).await?)?;
    statement("RowSeal", SEARCH, &app.run(SEARCH).await?)?;
    heading("5. Role analyst: the policy says read = \"mask\"")?;
    statement("RowSeal", SELECT, &stage.app("analyst").run(SELECT).await?)?;
    heading("6. What cannot be done safely is refused; the value does not reach the server")?;
    statement("RowSeal", REFUSED, &app.refused(REFUSED).await?)?;
    heading("7. Past RowSeal no plaintext is stored by mistake: the column takes only cells")?;
    statement("Postgres", PLAINTEXT, &server.refused(PLAINTEXT).await?)?;
    heading("8. What the application wrote is nowhere in the server's files, its log included")?;
    search_files(stage, &server).await
}

async fn panes(app: &Psql, server: &Psql) -> anyhow::Result<()> {
    let (opened, stored) = (app.run(SELECT).await?, server.run(SELECT_CELLS).await?);
    let left = ("the application (psql through RowSeal)", opened.as_str());
    let both = side_by_side(left, ("the table (psql on Postgres itself; cells shortened)", &stored));
    Ok(say(&format!("{both}\n"))?)
}

async fn search_files(stage: &Stage, server: &Psql) -> anyhow::Result<()> {
    server.run("CHECKPOINT").await?;
    let mut files = files(&stage.postgres.data_directory())?;
    files.push(stage.postgres.log_file());
    for value in VALUES {
        let holding = files.iter().filter(|file| holds(file, value)).count();
        say(&format!("{value}: in {holding} of {} files", files.len()))?;
        anyhow::ensure!(holding == 0, "plaintext in the server's files");
    }
    Ok(())
}

/// All files below a folder.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    Ok(found)
}

/// A file that went away in the meantime holds nothing.
fn holds(file: &Path, value: &str) -> bool {
    fs::read(file).is_ok_and(|bytes| memchr::memmem::find(&bytes, value.as_bytes()).is_some())
}

/// For `--keep`.
pub(super) fn say_how_to_connect(stage: &Stage) -> io::Result<()> {
    let (psql, address) = (stage.postgres.program("psql"), stage.proxy.address);
    let (psql, socket) = (psql.display(), stage.postgres.socket_directory().display());
    heading("\nEverything is left running until Ctrl-C")?;
    say(&format!("through RowSeal    {psql} -h {} -p {} -U app app", address.ip(), address.port()))?;
    say(&format!("  as the analyst   {psql} -h {} -p {} -U analyst app", address.ip(), address.port()))?;
    say(&format!("Postgres itself    {psql} -h {socket} -U postgres app"))?;
    say(&format!("the policy         {}", stage.config.display()))
}

fn heading(text: &str) -> io::Result<()> {
    say(&format!("{text}\n{}", "-".repeat(text.trim_start().chars().count())))
}

/// A statement as typed into psql at RowSeal or at Postgres, and what came back.
fn statement(at: &str, sql: &str, outcome: &str) -> io::Result<()> {
    say(&format!("{at}> {};\n{outcome}\n", sql.replace('\n', &format!("\n{:width$}  ", "", width = at.len()))))
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}
