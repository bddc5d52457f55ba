//! Look-ups that are asked for while others are under way go to Postgres together, as one query: what group commit is to
//! writing. A lone question does not wait.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::error::{DbError, ErrorKind};

/// Questions in one query.
const KEYS_MAX: usize = 64;

/// Questions that may wait; beyond it a question waits to be let in.
const QUEUE_MAX: usize = 1024;

/// Queries under way at once: one that is slow does not hold all the others.
const QUERIES_MAX: usize = 2;

struct Question<K, V> {
    key: K,
    reply: oneshot::Sender<Result<V, DbError>>,
}

/// Asks one question at a time, by a function that answers many, in their order. The query of a question begins after the
/// question was asked, so an answer is never older than that.
pub(crate) struct Coalesced<K, V> {
    questions: mpsc::Sender<Question<K, V>>,
}

impl<K, V> Clone for Coalesced<K, V> {
    fn clone(&self) -> Self {
        Self { questions: self.questions.clone() }
    }
}

impl<K: Clone + Send + 'static, V: Send + 'static> Coalesced<K, V> {
    /// Starts to answer; ends when every handle is gone. Call within a runtime.
    pub(crate) fn start<F>(look_up: F) -> Self
    where
        F: Fn(Vec<K>) -> BoxFuture<'static, Result<Vec<V>, DbError>> + Clone + Send + Sync + 'static,
    {
        let (questions, asked) = mpsc::channel::<Question<K, V>>(QUEUE_MAX);
        let asked = Arc::new(Mutex::new(asked));
        for _ in 0..QUERIES_MAX {
            let (asked, look_up) = (asked.clone(), look_up.clone());
            tokio::spawn(async move {
                loop {
                    let mut taken = Vec::new();
                    if asked.lock().await.recv_many(&mut taken, KEYS_MAX).await == 0 {
                        return;
                    }
                    answer(&look_up, taken).await;
                }
            });
        }
        Self { questions }
    }

    /// The answer to one question.
    pub(crate) async fn get(&self, key: K) -> Result<V, DbError> {
        const GONE: &str = "shutting down";
        let gone = || DbError::new("looking up", ErrorKind::Unavailable, GONE);
        let (reply, answer) = oneshot::channel();
        self.questions.send(Question { key, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

async fn answer<K: Clone, V, F>(look_up: &F, questions: Vec<Question<K, V>>)
where
    F: Fn(Vec<K>) -> BoxFuture<'static, Result<Vec<V>, DbError>>,
{
    let keys: Vec<K> = questions.iter().map(|question| question.key.clone()).collect();
    let alone = keys.len() == 1;
    // A caller that went away gets no answer.
    match look_up(keys).await {
        Ok(answers) => {
            for (question, found) in questions.into_iter().zip(answers) {
                drop(question.reply.send(Ok(found)));
            }
        }
        // One question that Postgres cannot take must not fail the others.
        Err(error) if error.kind() == ErrorKind::Data && !alone => {
            for question in questions {
                let found = look_up(vec![question.key]).await.map(|mut answers| answers.pop());
                let missing = || DbError::new("looking up", ErrorKind::Permanent, "an answer is missing");
                drop(question.reply.send(found.and_then(|found| found.ok_or_else(missing))));
            }
        }
        Err(error) => {
            for question in questions {
                drop(question.reply.send(Err(error.clone())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn questions_share_queries_and_a_bad_one_fails_alone() {
        let queries = Arc::new(AtomicUsize::new(0));
        let counted = queries.clone();
        let doubled = Coalesced::start(move |keys: Vec<i64>| {
            counted.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::task::yield_now().await;
                match keys.contains(&13) {
                    true => Err(DbError::new("doubling", ErrorKind::Data, "13 is unlucky")),
                    false => Ok(keys.iter().map(|key| key * 2).collect()),
                }
            }
            .boxed()
        });
        let answers = join_all((100..300).map(|key| doubled.get(key))).await;
        assert!((100..300).zip(answers).all(|(key, answer)| answer.is_ok_and(|n| n == key * 2)));
        assert!(queries.load(Ordering::Relaxed) < 50, "{queries:?} queries for 200 questions");
        let answers = join_all((0..20).map(|key| doubled.get(key))).await;
        let failed: Vec<_> = (0..20).zip(answers).filter_map(|(key, answer)| answer.is_err().then_some(key)).collect();
        assert_eq!(failed, [13]);
    }
}
