//! Environment variables over the file.
//!
//! A scalar's variable is its path in capitals: `listen.address` is `ROWSEAL_LISTEN_ADDRESS`, `keys.aws.region` is
//! `ROWSEAL_KEYS_AWS_REGION`. Those of a database carry its name: `ROWSEAL_DATABASE_APP_CONTROL`. A variable wins over
//! the file. A list, such as `ROWSEAL_ADMIN_CONSOLE`, has commas between its members. Which tables and columns are sealed
//! comes from the file alone.
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};

use super::error::{ConfigError, Place};
use super::raw::{Admin, At, Database, File, Tls};

/// The variable that stands for `key` of the database `name`: capitals, `_` for what is not a letter or digit.
pub fn variable_for_database(name: &str, key: &str) -> String {
    let upper = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
    };
    format!("ROWSEAL_DATABASE_{}_{}", upper(name), upper(key))
}

/// Lays the variables that are set over the file.
pub(super) fn overlay(raw: &mut File, variable: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
    let vars = Variables { variable };
    listen_and_upstream(raw, &vars)?;
    keys(raw, &vars)?;
    audit_and_limits(raw, &vars)?;
    raw.databases.iter_mut().try_for_each(|database| one_database(database, &vars))
}

fn listen_and_upstream(raw: &mut File, vars: &Variables<'_>) -> Result<(), ConfigError> {
    vars.word("ROWSEAL_LISTEN_ADDRESS", &mut raw.listen.address)?;
    listen_tls(&mut raw.listen.tls, vars)?;
    vars.word("ROWSEAL_UPSTREAM_ADDRESS", &mut raw.upstream.address)?;
    vars.word("ROWSEAL_UPSTREAM_TLS", &mut raw.upstream.tls)?;
    vars.word("ROWSEAL_UPSTREAM_ROOT_CERTIFICATE", &mut raw.upstream.root_certificate)?;
    let Admin { mut address, mut console } = raw.admin.take().unwrap_or_default();
    vars.word("ROWSEAL_ADMIN_ADDRESS", &mut address)?;
    vars.read("ROWSEAL_ADMIN_CONSOLE", &mut console, |text| {
        Ok(text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect())
    })?;
    raw.admin = Some(Admin { address, console });
    Ok(())
}

fn listen_tls(tls: &mut Option<Tls>, vars: &Variables<'_>) -> Result<(), ConfigError> {
    let (mut certificate, mut key) = tls.take().map(|tls| (tls.certificate, tls.key)).unzip();
    vars.word("ROWSEAL_LISTEN_TLS_CERTIFICATE", &mut certificate)?;
    vars.word("ROWSEAL_LISTEN_TLS_KEY", &mut key)?;
    *tls = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(Tls { certificate, key }),
        (None, None) => None,
        (Some(_), None) => {
            return Err(alone("ROWSEAL_LISTEN_TLS_CERTIFICATE", "ROWSEAL_LISTEN_TLS_KEY"));
        }
        (None, Some(_)) => {
            return Err(alone("ROWSEAL_LISTEN_TLS_KEY", "ROWSEAL_LISTEN_TLS_CERTIFICATE"));
        }
    };
    Ok(())
}

fn alone(name: &str, needed: &str) -> ConfigError {
    ConfigError::Variable { name: name.to_owned(), message: format!("{needed} must be set too") }
}

fn keys(raw: &mut File, vars: &Variables<'_>) -> Result<(), ConfigError> {
    let keys = &mut raw.keys;
    vars.word("ROWSEAL_KEYS_PROVIDER", &mut keys.provider)?;
    vars.word("ROWSEAL_KEYS_KEYRING", &mut keys.keyring)?;
    vars.word("ROWSEAL_KEYS_WRAPPING", &mut keys.wrapping)?;
    vars.parsed("ROWSEAL_KEYS_AUTO_REGISTER", &mut keys.auto_register)?;
    vars.word("ROWSEAL_KEYS_CONFIRM_INTERVAL", &mut keys.confirm_interval)?;
    vars.word("ROWSEAL_KEYS_LEASE", &mut keys.lease)?;
    vars.parsed("ROWSEAL_KEYS_CACHE_BYTES_MAX", &mut keys.cache_bytes_max)?;
    vars.parsed("ROWSEAL_KEYS_POOL_SIZE", &mut keys.pool_size)?;
    vars.parsed("ROWSEAL_KEYS_KMS_CONCURRENCY", &mut keys.kms_concurrency)?;
    vars.word("ROWSEAL_KEYS_AWS_REGION", &mut keys.aws.region)?;
    vars.word("ROWSEAL_KEYS_AWS_ENDPOINT", &mut keys.aws.endpoint)?;
    vars.word("ROWSEAL_KEYS_AWS_PROFILE", &mut keys.aws.profile)
}

fn audit_and_limits(raw: &mut File, vars: &Variables<'_>) -> Result<(), ConfigError> {
    vars.word("ROWSEAL_AUDIT_DIRECTORY", &mut raw.audit.directory)?;
    vars.word("ROWSEAL_AUDIT_DURABILITY", &mut raw.audit.durability)?;
    vars.word("ROWSEAL_AUDIT_KEY", &mut raw.audit.key)?;
    let limits = &mut raw.limits;
    vars.parsed("ROWSEAL_LIMITS_CONNECTIONS_MAX", &mut limits.connections_max)?;
    vars.parsed("ROWSEAL_LIMITS_MESSAGE_BYTES_MAX", &mut limits.message_bytes_max)?;
    vars.parsed("ROWSEAL_LIMITS_PLAN_BYTES_MAX", &mut limits.plan_bytes_max)?;
    vars.word("ROWSEAL_LIMITS_LOGIN_TIMEOUT", &mut limits.login_timeout)?;
    vars.word("ROWSEAL_LIMITS_DRAIN_TIMEOUT", &mut limits.drain_timeout)
}

fn one_database(database: &mut Database, vars: &Variables<'_>) -> Result<(), ConfigError> {
    let named = |key| variable_for_database(&database.name.value, key);
    vars.word(&named("unsealed"), &mut database.unsealed)?;
    vars.word(&named("read"), &mut database.read)?;
    vars.word(&named("on_key_unavailable"), &mut database.on_key_unavailable)?;
    if vars.word(&named("control"), &mut database.control).is_ok() && is_variable(&database.control) {
        database.control_file = None;
    }
    if vars.word(&named("control_file"), &mut database.control_file).is_ok() && is_variable(&database.control_file) {
        database.control = database.control.take().filter(|control| matches!(control.place, Place::Variable(_)));
    }
    Ok(())
}

fn is_variable(value: &Option<At<String>>) -> bool {
    matches!(value, Some(At { place: Place::Variable(_), .. }))
}

struct Variables<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Variables<'_> {
    /// A text or one of a list of words.
    fn word<T: for<'de> Deserialize<'de>>(&self, name: &str, slot: &mut Option<At<T>>) -> Result<(), ConfigError> {
        self.read(name, slot, |text| {
            let deserializer: StrDeserializer<'_, ValueError> = text.into_deserializer();
            T::deserialize(deserializer).map_err(|error| error.to_string())
        })
    }

    /// A number or truth value.
    fn parsed<T: std::str::FromStr>(&self, name: &str, slot: &mut Option<At<T>>) -> Result<(), ConfigError>
    where
        T::Err: std::fmt::Display,
    {
        self.read(name, slot, |text| text.parse::<T>().map_err(|error| error.to_string()))
    }

    fn read<T>(
        &self,
        name: &str,
        slot: &mut Option<At<T>>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<(), ConfigError> {
        let Some(text) = (self.variable)(name) else {
            return Ok(());
        };
        let value = parse(&text).map_err(|message| ConfigError::Variable { name: name.to_owned(), message })?;
        *slot = Some(At { value, place: Place::Variable(name.to_owned()) });
        Ok(())
    }
}
