//! `task_read_model`: where each agent's task stands, in the order of its own stream.

use serde_json::json;

use super::Units;
use crate::canonical;
use crate::clock::Timestamp;
use crate::event::Event;
use crate::event_type::EventType;

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskRowStatus {
    /// An agent has it.
    Assigned,
    /// Done.
    Completed,
    /// The agent gave up.
    Failed,
    /// It is no longer wanted.
    Cancelled,
}

impl TaskRowStatus {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Assigned, "assigned"),
        (Self::Completed, "completed"),
        (Self::Failed, "failed"),
        (Self::Cancelled, "cancelled"),
    ];

    /// As stored, and as the contract has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(status, _)| *status == self).map_or("", |(_, name)| name)
    }

    /// From what is stored.
    #[must_use]
    pub fn from_stored(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(status, _)| *status)
    }
}

/// One row. A task known only from its end has a row too, without what its assignment would have said.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRow {
    /// Whose.
    pub tenant: String,
    /// The task.
    pub id: String,
    /// Whose task it is.
    pub agent_id: Option<String>,
    /// What kind of agent that is.
    pub agent_type: Option<String>,
    /// What is to be done.
    pub task_type: Option<String>,
    /// How urgent.
    pub priority: Option<String>,
    /// Where it stands.
    pub status: TaskRowStatus,
    /// When it was assigned.
    pub assigned_at: Option<Timestamp>,
    /// By when it should be done.
    pub deadline: Option<Timestamp>,
    /// How long it should take, microseconds.
    pub expected_micros: Option<i64>,
    /// When it ended, well or not.
    pub completed_at: Option<Timestamp>,
    /// How long the agent worked, microseconds.
    pub execution_micros: Option<i64>,
    /// Whether it ended in time; `None` without a deadline or an end.
    pub deadline_met: Option<bool>,
    /// When the last event happened.
    pub updated_at: Timestamp,
    /// The stream version of the last event applied; 0 when the events carry none.
    pub version: i64,
}

impl TaskRow {
    /// The row before its first event.
    #[must_use]
    pub fn new(event: &Event) -> Self {
        Self {
            tenant: event.tenant.to_string(),
            id: event.stream.aggregate_id().to_owned(),
            agent_id: None,
            agent_type: None,
            task_type: None,
            priority: None,
            status: TaskRowStatus::Assigned,
            assigned_at: None,
            deadline: None,
            expected_micros: None,
            completed_at: None,
            execution_micros: None,
            deadline_met: None,
            updated_at: event.timestamp,
            version: 0,
        }
    }

    /// Whether the event is for this read model at all.
    #[must_use]
    pub fn concerns(event: &Event) -> bool {
        matches!(event.event_type, EventType::TaskAssigned | EventType::TaskCompleted)
    }

    /// Takes the next event of the task's stream in.
    pub fn apply(&mut self, event: &Event, units: Units) {
        let text = |field: &str| event.text(field).map(str::to_owned);
        let micros = |field: &str| event.number(field).map(|n| units.execution_time.to_micros(n));
        self.agent_id = text("agentId").or(self.agent_id.take());
        if event.event_type == EventType::TaskAssigned {
            self.agent_type = text("agentType");
            self.task_type = text("taskType");
            self.priority = text("priority");
            self.deadline = event.text("deadline").and_then(|at| at.parse().ok());
            self.expected_micros = micros("expectedDuration");
            self.assigned_at = Some(event.timestamp);
            self.status = TaskRowStatus::Assigned;
            (self.completed_at, self.execution_micros) = (None, None);
        } else {
            self.status = event.text("status").and_then(TaskRowStatus::from_stored).unwrap_or(TaskRowStatus::Completed);
            self.completed_at = Some(event.timestamp);
            self.execution_micros = micros("executionTime");
        }
        self.deadline_met = self.completed_at.zip(self.deadline).map(|(ended, deadline)| ended <= deadline);
        self.updated_at = event.timestamp;
        self.version = event.version.unwrap_or(self.version);
    }

    /// Canonical text of the row, for `weir verify`.
    #[must_use]
    pub fn canonical(&self) -> String {
        let time = |at: Option<Timestamp>| at.map(|t| t.to_string());
        let whole = |n: Option<i64>| n.map(|n| n.to_string());
        canonical::text(&json!({
            "tenant": self.tenant, "id": self.id, "agent_id": self.agent_id, "agent_type": self.agent_type,
            "task_type": self.task_type, "priority": self.priority, "status": self.status.as_str(),
            "assigned_at": time(self.assigned_at), "deadline": time(self.deadline),
            "expected_micros": whole(self.expected_micros), "completed_at": time(self.completed_at),
            "execution_micros": whole(self.execution_micros), "deadline_met": self.deadline_met,
            "updated_at": time(Some(self.updated_at)), "version": self.version,
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::project::progress::tests::event;

    fn row_of(events: &[(EventType, Value)]) -> TaskRow {
        let events: Vec<Event> =
            (1..).zip(events).map(|(n, (kind, changes))| event(*kind, "task_1", n, changes.clone())).collect();
        let mut row = TaskRow::new(&events[0]);
        events.iter().for_each(|e| row.apply(e, Units::default()));
        row
    }

    #[test]
    fn a_deadline_is_met_or_missed_when_the_task_ends() {
        // The tests' events happen in the second after 2023-11-14T22:13:20.
        for (deadline, met) in [("2023-11-15T00:00:00Z", true), ("2023-11-14T00:00:00Z", false)] {
            let assigned = (EventType::TaskAssigned, json!({"deadline": deadline}));
            let row = row_of(std::slice::from_ref(&assigned));
            assert_eq!((row.status, row.deadline_met), (TaskRowStatus::Assigned, None));
            let row = row_of(&[assigned, (EventType::TaskCompleted, json!({"status": "failed"}))]);
            assert_eq!((row.status, row.deadline_met), (TaskRowStatus::Failed, Some(met)));
            assert_eq!((row.execution_micros, row.expected_micros), (Some(41_250_000), Some(60_000_000)));
        }
    }

    #[test]
    fn a_task_known_from_its_end_has_a_row() {
        let row = row_of(&[(EventType::TaskCompleted, json!({"status": "cancelled"}))]);
        assert_eq!((row.status, row.assigned_at, row.deadline_met), (TaskRowStatus::Cancelled, None, None));
    }
}
