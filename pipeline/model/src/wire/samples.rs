//! One valid payload of each type, as the specification shows them: the seed of tests, fuzzing and the demo.

use serde_json::{Value, json};

use crate::event_type::EventType;

/// A payload of the newest version, every field present.
#[must_use]
pub fn one(event_type: EventType) -> Value {
    let mut data = match event_type {
        EventType::UserRegistered => json!({
            "userId": "user_12345", "email": "john.doe@example.com", "username": "johndoe",
            "profile": {"firstName": "John", "lastName": "Doe", "preferences": {"language": "en", "timezone": "UTC"}},
            "registrationSource": "web_app"}),
        EventType::UserProfileUpdated => json!({
            "userId": "user_12345", "changedFields": ["lastName", "language"],
            "previousValues": {"lastName": "Doe"}, "newValues": {"lastName": "Roe", "language": "fr"}}),
        EventType::UserDeactivated => json!({"userId": "user_12345", "reason": "requested"}),
        EventType::ContentUploaded => json!({
            "contentId": "content_1", "userId": "user_12345", "contentType": "document", "fileName": "notes.pdf",
            "fileSize": 48_213, "mimeType": "application/pdf", "fileUrl": "https://files.example/notes.pdf",
            "metadata": {"title": "Notes", "description": "Week 3", "tags": ["algebra"]},
            "processingOptions": {"extractText": true, "analyzeSentiment": false, "extractEntities": true, "generateSummary": true}}),
        EventType::ContentProcessingStarted => json!({
            "contentId": "content_1", "userId": "user_12345", "processingOptions": {"extractText": true}}),
        EventType::ContentProcessingCompleted => json!({
            "contentId": "content_1", "userId": "user_12345", "processingType": "document", "status": "success",
            "results": {"extractedText": "x + y", "language": "en", "sentiment": {"score": 0.1, "label": "neutral"},
                "entities": [], "topics": ["algebra"], "summary": "Sums", "keywords": ["sum"], "confidence": 0.93},
            "processingDuration": 1830.5}),
        EventType::LearningSessionStarted => json!({
            "sessionId": "session_1", "userId": "user_12345", "learningPathId": "path_1", "moduleId": "module_1",
            "deviceInfo": {"type": "laptop", "os": "linux", "browser": "firefox"}}),
        EventType::AssessmentCompleted => json!({
            "assessmentId": "assessment_1", "userId": "user_12345", "sessionId": "session_1", "score": 78.5,
            "maxScore": 100, "passed": true, "timeSpent": 905_000, "answers": [{"question": 1, "choice": "b"}],
            "analytics": {"correctAnswers": 15, "incorrectAnswers": 4, "skippedAnswers": 1, "averageTimePerQuestion": 45_250}}),
        EventType::TaskAssigned => json!({
            "taskId": "task_1", "agentId": "agent_1", "agentType": "reviewer", "taskType": "review", "priority": "high",
            "payload": {"contentId": "content_1"}, "expectedDuration": 60_000, "deadline": "2024-01-16T10:30:00.000Z"}),
        EventType::TaskCompleted => json!({
            "taskId": "task_1", "agentId": "agent_1", "status": "completed", "result": {"verdict": "fine"},
            "executionTime": 41_250, "resourceUsage": {"cpuTime": 1200, "memoryUsage": 64.5, "apiCalls": 3},
            "qualityMetrics": {"accuracy": 0.97, "completeness": 1, "relevance": 0.9}}),
    };
    data["timestamp"] = json!("2024-01-15T10:30:00.000Z");
    data
}

/// [`one`] of every type.
pub fn all() -> impl Iterator<Item = (EventType, Value)> {
    EventType::ALL.into_iter().map(|event_type| (event_type, one(event_type)))
}
