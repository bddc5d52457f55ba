//! The questions of `sql/queries`, each once: `weir ask`, dashboards and tests take them from there.

use std::sync::LazyLock;

use crate::question::{HeadError, Question};

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../../sql/queries/", $name, ".sql")))),+]
    };
}

/// Names and files.
const FILES: [(&str, &str); 34] = files!(
    "active_learners_per_day",
    "agent_failures",
    "agent_resources",
    "assessment_difficulty",
    "attempts_by_assessment",
    "attempts_until_passed",
    "content_items",
    "deadlines_kept",
    "deadlines_missed",
    "engagement_by_module",
    "events_by_source",
    "execution_time_by_agent",
    "execution_time_by_task_type",
    "freshness",
    "funnel",
    "late_events",
    "learner_progress",
    "learner_scores",
    "learner_time",
    "learner_timeline",
    "learners_at_risk",
    "learners_inactive",
    "learning_paths_compared",
    "processing",
    "processing_by_size",
    "registrations_per_day",
    "results_by_learning_path",
    "retention_by_cohort",
    "score_distribution",
    "session_length",
    "tenants_compared",
    "time_to_first_session",
    "uploads_by_type",
    "volume_per_tenant",
);

/// All of them, by name.
pub fn questions() -> Result<&'static [Question], HeadError> {
    static READ: LazyLock<Result<Vec<Question>, HeadError>> =
        LazyLock::new(|| FILES.iter().map(|(name, text)| Question::read(name, text)).collect());
    READ.as_deref().map_err(Clone::clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_a_whole_head() {
        let questions = questions().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(questions.len(), FILES.len());
        assert!(questions.is_sorted_by_key(|question| question.name), "by name");
    }
}
