//! Old data lifted to the newest contract. An upcaster restates what the old version said; it invents nothing.

use serde_json::{Value, json};

use crate::Object;
use crate::event_type::EventType;

/// One step between two versions of a type.
#[derive(Debug, Clone, Copy)]
pub struct Upcaster {
    /// The type.
    pub event_type: EventType,
    /// From this version …
    pub from: &'static str,
    /// … to this one.
    pub to: &'static str,
    /// Rewrites the data in place.
    pub apply: fn(&mut Object),
}

/// Every step there is; [`crate::contract::Contracts::build`] checks that the chains are complete.
pub const UPCASTERS: &[Upcaster] = &[
    Upcaster {
        event_type: EventType::ContentUploaded,
        from: "1.0.0",
        to: "1.2.0",
        apply: content_uploaded_without_processing_options,
    },
    Upcaster {
        event_type: EventType::AssessmentCompleted,
        from: "1.0.0",
        to: "1.1.0",
        apply: assessment_completed_without_analytics,
    },
    Upcaster {
        event_type: EventType::ContentProcessingCompleted,
        from: "1.0.0",
        to: "2.0.0",
        apply: content_processing_completed_with_flat_sentiment,
    },
];

/// Before 1.2 nothing could be asked for, so nothing was.
fn content_uploaded_without_processing_options(data: &mut Object) {
    data.entry("processingOptions").or_insert_with(
        || json!({"extractText": false, "analyzeSentiment": false, "extractEntities": false, "generateSummary": false}),
    );
}

/// Analytics became possible with 1.1 and stay optional there: which answers were right is not in the old data.
fn assessment_completed_without_analytics(_: &mut Object) {}

/// 1.0 had `sentimentScore`, beside the other results or beside them all; 2.0 has `results.sentiment.score`.
fn content_processing_completed_with_flat_sentiment(data: &mut Object) {
    let flat = data.remove("sentimentScore");
    let nested = data.get_mut("results").and_then(Value::as_object_mut).and_then(|r| r.remove("sentimentScore"));
    let Some(score) = nested.or(flat).filter(|score| !score.is_null()) else { return };
    if let Some(results) = data.entry("results").or_insert_with(|| json!({})).as_object_mut() {
        results.entry("sentiment").or_insert_with(|| json!({"score": score}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;
    use crate::wire::samples;

    fn lift(event_type: EventType, data: Value) -> (String, Value) {
        let Value::Object(data) = data else { panic!("an object") };
        let contracts = contract::standard().expect("contracts");
        let accepted = contracts.accept(event_type, "1.0.0", data).expect("a valid old event");
        (accepted.version, Value::Object(accepted.data))
    }

    #[test]
    fn content_uploaded_1_0_0_gains_options_that_ask_for_nothing() {
        let mut old = samples::one(EventType::ContentUploaded);
        old.as_object_mut().expect("object").remove("processingOptions");
        let (version, data) = lift(EventType::ContentUploaded, old);
        assert_eq!(version, "1.2.0");
        assert_eq!(data["processingOptions"]["extractText"], json!(false));
    }

    #[test]
    fn assessment_completed_1_0_0_stays_without_analytics() {
        let mut old = samples::one(EventType::AssessmentCompleted);
        old.as_object_mut().expect("object").remove("analytics");
        let (version, data) = lift(EventType::AssessmentCompleted, old.clone());
        assert_eq!((version.as_str(), data), ("1.1.0", old));
    }

    #[test]
    fn a_flat_sentiment_score_moves_below_results_wherever_it_stood() {
        for place in ["results", ""] {
            let mut old = samples::one(EventType::ContentProcessingCompleted);
            old["results"] = json!({"language": "en"});
            let target = if place.is_empty() { &mut old } else { &mut old["results"] };
            target["sentimentScore"] = json!(0.25);
            let (version, data) = lift(EventType::ContentProcessingCompleted, old);
            assert_eq!(version, "2.0.0");
            assert_eq!(data["results"], json!({"language": "en", "sentiment": {"score": 0.25}}));
            assert_eq!(data.get("sentimentScore"), None);
        }
        let mut bare = samples::one(EventType::ContentProcessingCompleted);
        bare.as_object_mut().expect("object").remove("results");
        bare["sentimentScore"] = json!(-1);
        assert_eq!(lift(EventType::ContentProcessingCompleted, bare).1["results"], json!({"sentiment": {"score": -1}}));
    }
}
