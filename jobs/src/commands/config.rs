//! `weir config show|schema|validate`

use std::process::ExitCode;

use serde_json::json;
use weir_engine::BoxError;

use crate::attached::Target;
use crate::output::{Format, Listing, say};
use crate::settings::{Layers, schema};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Config {
    /// Every setting, its value, and where that came from; secrets are not shown
    Show,
    /// A JSON Schema of the configuration file, for editors
    Schema,
    /// Check the settings without using them; exits 1 when something is wrong
    Validate {
        /// Leave the environment out: is the file right by itself?
        #[arg(long)]
        no_environment: bool,
    },
}

pub(crate) fn run(target: &Target, command: Config, format: Format) -> Result<ExitCode, BoxError> {
    let layers =
        |environment| Layers::read(&target.data_dir, target.config.as_deref(), &target.set, environment, &target.own);
    match command {
        Config::Show => {
            let mut rows = Listing::new(&["setting", "value", "from"]);
            for value in layers(true)?.values()? {
                rows.rows.push(vec![json!(value.key), value.value, json!(value.origin)]);
            }
            rows.print(format)?;
        }
        Config::Schema => say(&serde_json::to_string_pretty(&schema()?)?)?,
        Config::Validate { no_environment } => {
            layers(!no_environment)?.settings()?;
            say("valid")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
