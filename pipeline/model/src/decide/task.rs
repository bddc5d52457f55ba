//! A task is assigned once, and completed once, by the agent it was assigned to.

use serde::{Deserialize, Serialize};

use super::{Rejection, text};
use crate::Object;
use crate::event_type::EventType;
use crate::ids::StreamId;

/// What the command side knows of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    agent: Option<String>,
    completed: bool,
}

impl Task {
    pub(super) fn apply(&mut self, event_type: EventType, data: &Object) {
        if event_type == EventType::TaskAssigned {
            self.agent = Some(text(data, "agentId"));
        }
        self.completed |= event_type == EventType::TaskCompleted;
    }

    pub(super) fn decide(&self, stream: &StreamId, event_type: EventType, data: &Object) -> Result<(), Rejection> {
        let stream = stream.to_string();
        match (&self.agent, event_type == EventType::TaskAssigned) {
            (None, true) => Ok(()),
            (Some(agent), true) => Err(Rejection::AssignedAlready { stream, agent: agent.clone() }),
            (None, false) => Err(Rejection::NotAssigned { stream }),
            (Some(_), false) if self.completed => Err(Rejection::CompletedAlready { stream }),
            (Some(agent), false) => match text(data, "agentId") {
                given if given == *agent => Ok(()),
                given => Err(Rejection::OtherAgent { stream, agent: agent.clone(), given }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scenario, with};
    use crate::event_type::AggregateType::Task;
    use crate::event_type::EventType::{TaskAssigned, TaskCompleted};

    #[test]
    fn a_task_is_assigned_once() {
        Scenario::given(Task, &[]).when(TaskAssigned).then(TaskAssigned);
        let other = with(TaskAssigned, "agentId", "agent_2");
        Scenario::given(Task, &[TaskAssigned]).when_with(TaskAssigned, other).then_rejected("is assigned to agent_1");
        Scenario::given(Task, &[TaskAssigned, TaskCompleted]).when(TaskAssigned).then_rejected("already");
    }

    #[test]
    fn a_task_is_completed_once_by_its_agent() {
        Scenario::given(Task, &[TaskAssigned]).when(TaskCompleted).then(TaskCompleted);
        Scenario::given(Task, &[]).when(TaskCompleted).then_rejected("never assigned");
        Scenario::given(Task, &[TaskAssigned, TaskCompleted]).when(TaskCompleted).then_rejected("completed already");
        let other = with(TaskCompleted, "agentId", "agent_2");
        Scenario::given(Task, &[TaskAssigned]).when_with(TaskCompleted, other).then_rejected("not to agent_2");
    }
}
