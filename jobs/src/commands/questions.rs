//! The questions of `sql/queries`, for who asks one by its name.

use serde_json::json;
use weir_engine::BoxError;
use weir_query::{Question, questions};

use crate::output::Listing;

/// Names less alike than this are not suggested.
const ALIKE: f64 = 0.8;

/// All of them, what each asks and takes.
pub(super) fn list() -> Result<Listing, BoxError> {
    let mut rows = Listing::new(&["question", "asks", "takes", "on"]);
    rows.rows.extend(questions()?.iter().map(|question| {
        let stores = match question.read_models_sql {
            Some(_) => "history, clickhouse, read-models",
            None => "history, clickhouse",
        };
        vec![json!(question.name), json!(question.about), json!(question.usage()), json!(stores)]
    }));
    Ok(rows)
}

/// One by its name.
pub(super) fn find(name: &str) -> Result<&'static Question, BoxError> {
    let all = questions()?;
    Ok(all.iter().find(|question| question.name == name).ok_or_else(|| unknown(name, all))?)
}

fn unknown(name: &str, all: &[Question]) -> String {
    let alike = |question: &Question| strsim::jaro_winkler(name, question.name);
    let nearest = all.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    match nearest.filter(|question| alike(question) > ALIKE) {
        Some(nearest) => format!("there is no question {name}; did you mean {}?", nearest.name),
        None => format!("there is no question {name}; `weir ask` lists them"),
    }
}
