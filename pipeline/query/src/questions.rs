//! The questions of `sql/queries`, each once: history and ClickHouse have the same names and take the same words.

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Its file's name.
    pub name: &'static str,
    /// What is asked.
    pub sql: &'static str,
}

impl Question {
    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        QUESTIONS.iter().find(|question| question.name == name).copied()
    }

    /// What it asks, in words.
    #[must_use]
    pub fn words(&self) -> String {
        let lines = self.sql.lines().map_while(|line| line.strip_prefix("-- "));
        lines.collect::<Vec<_>>().join(" ")
    }
}

macro_rules! question {
    ($name:literal) => {
        Question { name: $name, sql: include_str!(concat!("../../../sql/queries/", $name, ".sql")) }
    };
}

/// All of them.
pub const QUESTIONS: [Question; 12] = [
    question!("active_learners_per_day"),
    question!("attempts_by_assessment"),
    question!("deadlines_kept"),
    question!("execution_time_by_agent"),
    question!("execution_time_by_task_type"),
    question!("freshness"),
    question!("learners_at_risk"),
    question!("processing"),
    question!("registrations_per_day"),
    question!("results_by_learning_path"),
    question!("uploads_by_type"),
    question!("volume_per_tenant"),
];
