//! Made-up learners, files and agents, whose commands follow the rules: all ten event types, in plausible proportions.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use weir_model::decide::CommandType;
use weir_model::{EventType, Object};

/// A command may follow on an earlier one only after this many others, so that the earlier one is stored by then.
const DISTANCE: usize = 300;

/// Makes commands without end.
pub(super) struct Learners {
    random: StdRng,
    run: String,
    users: u64,
    things: u64,
    /// Commands that follow on earlier ones, oldest first, with the count at which they are due.
    later: VecDeque<(u64, EventType, Value)>,
    made: u64,
}

impl Learners {
    pub(super) fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { random, run: format!("{seed:016x}"), users: 0, things: 0, later: VecDeque::new(), made: 0 }
    }

    /// Names this run: ids of different runs never meet.
    pub(super) fn run(&self) -> &str {
        &self.run
    }

    pub(super) fn next(&mut self) -> (CommandType, Object) {
        self.made += 1;
        if self.later.front().is_some_and(|(due, _, _)| *due <= self.made)
            && let Some((_, event_type, data)) = self.later.pop_front()
        {
            return command(event_type, data);
        }
        let (event_type, data) = match self.random.random_range(0..100) {
            _ if self.users < 10 => self.register(),
            0..8 => self.register(),
            8..12 => (
                EventType::UserProfileUpdated,
                json!({"userId": self.user(), "changedFields": ["language"], "previousValues": {}, "newValues": {"language": self.pick(&["en", "fr", "de"])}}),
            ),
            12..13 => (EventType::UserDeactivated, json!({"userId": self.user(), "reason": "demo"})),
            13..25 => self.upload(),
            25..55 => (
                EventType::LearningSessionStarted,
                json!({"sessionId": self.thing("session"), "userId": self.user(), "learningPathId": self.pick(&["algebra", "history", "biology"]),
                    "moduleId": self.pick(&["m1", "m2", "m3"]), "deviceInfo": {"type": self.pick(&["laptop", "phone"]), "os": "linux"}}),
            ),
            55..85 => self.assess(),
            _ => self.assign(),
        };
        command(event_type, data)
    }

    fn later(&mut self, event_type: EventType, data: Value) {
        let distance = u64::try_from(DISTANCE).unwrap_or(u64::MAX);
        self.later.push_back((self.made + distance, event_type, data));
    }

    fn pick(&mut self, choices: &[&'static str]) -> &'static str {
        choices.choose(&mut self.random).copied().unwrap_or_default()
    }

    fn user(&mut self) -> String {
        let n = self.random.random_range(0..self.users.max(1));
        format!("learner-{}-{n}", self.run)
    }

    fn thing(&mut self, kind: &str) -> String {
        self.things += 1;
        format!("{kind}-{}-{}", self.run, self.things)
    }

    fn register(&mut self) -> (EventType, Value) {
        let id = format!("learner-{}-{}", self.run, self.users);
        self.users += 1;
        let data = json!({"userId": id, "email": format!("{id}@example.com"), "username": id, "registrationSource": "demo",
            "profile": {"firstName": "Learner", "lastName": self.users.to_string(), "preferences": {"timezone": "UTC"}}});
        (EventType::UserRegistered, data)
    }

    fn upload(&mut self) -> (EventType, Value) {
        let (id, user) = (self.thing("content"), self.user());
        let status = self.pick(&["success", "success", "partial", "failed"]);
        self.later(EventType::ContentProcessingStarted, json!({"contentId": id, "userId": user}));
        let duration = self.random.random_range(200..9000);
        self.later(
            EventType::ContentProcessingCompleted,
            json!({"contentId": id, "userId": user, "processingType": "text", "status": status, "processingDuration": duration,
                "results": {"language": "en", "confidence": 0.9}}),
        );
        // The second step must wait as long behind the first as the first behind the upload.
        if let Some(last) = self.later.back_mut() {
            last.0 += u64::try_from(DISTANCE).unwrap_or(0);
        }
        self.later.make_contiguous().sort_by_key(|(due, _, _)| *due);
        let data = json!({"contentId": id, "userId": user, "contentType": self.pick(&["text", "image", "audio", "document", "video"]),
            "fileName": "notes", "fileSize": self.random.random_range(1000..5_000_000), "mimeType": "application/octet-stream",
            "fileUrl": format!("https://files.example/{id}")});
        (EventType::ContentUploaded, data)
    }

    fn assess(&mut self) -> (EventType, Value) {
        let score = self.random.random_range(0..=100);
        let data = json!({"assessmentId": self.thing("assessment"), "userId": self.user(), "score": score, "maxScore": 100,
            "passed": score >= 40, "timeSpent": self.random.random_range(60_000..3_600_000)});
        (EventType::AssessmentCompleted, data)
    }

    fn assign(&mut self) -> (EventType, Value) {
        let (id, agent) = (self.thing("task"), format!("agent-{}", self.random.random_range(0..8)));
        let status = self.pick(&["completed", "completed", "completed", "failed", "cancelled"]);
        let execution = self.random.random_range(50..900_000);
        self.later(
            EventType::TaskCompleted,
            json!({"taskId": id, "agentId": agent, "status": status, "executionTime": execution, "resourceUsage": {"apiCalls": 3}}),
        );
        self.later.make_contiguous().sort_by_key(|(due, _, _)| *due);
        let data = json!({"taskId": id, "agentId": agent, "agentType": self.pick(&["researcher", "analyzer", "creator", "reviewer", "coordinator"]),
            "taskType": "summarise", "priority": self.pick(&["low", "normal", "high", "critical"]), "expectedDuration": 60_000});
        (EventType::TaskAssigned, data)
    }
}

fn command(event_type: EventType, data: Value) -> (CommandType, Object) {
    let Value::Object(data) = data else { return (CommandType::for_event(event_type), Object::new()) };
    (CommandType::for_event(event_type), data)
}
