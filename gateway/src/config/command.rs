//! `gateway config check` and `gateway config show`.

use clap::Subcommand;

use super::{Config, ConfigError, ServeFlags};

/// What to do with the configuration.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ConfigCommand {
    /// Say whether flags, environment and file can hold together.
    Check,
    /// Print the values that hold, as TOML; secrets are never part of them.
    Show,
}

impl ConfigCommand {
    /// What to print.
    pub fn run(self, flags: &ServeFlags) -> Result<String, ConfigError> {
        let config = Config::load(flags)?;
        let keys = config.auth.keys()?;
        match self {
            Self::Check => Ok("the configuration holds".to_owned()),
            Self::Show => {
                let table = toml::to_string(&config).map_err(|error| ConfigError::Malformed {
                    origin: "the configuration".to_owned(),
                    reason: error.to_string(),
                })?;
                Ok(format!("# api keys: {keys:?}\n{table}"))
            }
        }
    }
}
