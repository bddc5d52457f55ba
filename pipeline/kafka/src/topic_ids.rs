//! Topic ids, which rdkafka has no call for: DescribeTopics through librdkafka's C interface. A topic that was deleted and
//! created again has another id, so an id together with the cluster's names where offsets mean something.

#![allow(unsafe_code, reason = "librdkafka's C interface; each block says why it is sound")]

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as sys;
use sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
use sys::rd_kafka_resp_err_t::{RD_KAFKA_RESP_ERR_NO_ERROR, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART};

use crate::KafkaError;

const ACTION: &str = "describing topics";

/// What librdkafka gives to its caller, destroyed when dropped.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Self, KafkaError> {
        if pointer.is_null() { Err(KafkaError::permanent(ACTION, "out of memory")) } else { Ok(Self(pointer, destroy)) }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from librdkafka together with its destructor, is not null, and is dropped once.
        unsafe { self.1(self.0) }
    }
}

/// The ids of these topics; those that do not exist are left out. Blocks for at most `timeout`.
pub(crate) fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    timeout: Duration,
) -> Result<HashMap<String, String>, KafkaError> {
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(*topic).ok()).collect();
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let native = client.native_ptr();
    // SAFETY: `client` outlives this call, so `native` is valid throughout; the names outlive the collection, which copies
    // them; every object made here is destroyed by its guard, in reverse order. The queue is ours alone, so the one event
    // that arrives in it answers this request; strings and descriptions live as long as that event.
    unsafe {
        let collection = Owned::new(
            sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()),
            sys::rd_kafka_TopicCollection_destroy,
        )?;
        let options = Owned::new(
            sys::rd_kafka_AdminOptions_new(native, RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            sys::rd_kafka_AdminOptions_destroy,
        )?;
        sys::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, ptr::null_mut(), 0);
        let queue = Owned::new(sys::rd_kafka_queue_new(native), sys::rd_kafka_queue_destroy)?;
        sys::rd_kafka_DescribeTopics(native, collection.0, options.0, queue.0);
        let event = sys::rd_kafka_queue_poll(queue.0, millis.saturating_add(1000));
        if event.is_null() {
            return Err(KafkaError::unavailable(ACTION, "no answer in time"));
        }
        let event = Owned::new(event, sys::rd_kafka_event_destroy)?;
        let error = sys::rd_kafka_event_error(event.0);
        if error != RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(KafkaError::unavailable(ACTION, text(sys::rd_kafka_err2str(error))));
        }
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        let described = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        let mut ids = HashMap::new();
        for index in 0..count {
            let description = *described.add(index);
            let error = sys::rd_kafka_TopicDescription_error(description);
            let code = if error.is_null() { RD_KAFKA_RESP_ERR_NO_ERROR } else { sys::rd_kafka_error_code(error) };
            if code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART {
                continue;
            }
            if code != RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(KafkaError::unavailable(ACTION, text(sys::rd_kafka_error_string(error))));
            }
            let id = sys::rd_kafka_TopicDescription_topic_id(description);
            let name = text(sys::rd_kafka_TopicDescription_name(description));
            ids.insert(name, text(sys::rd_kafka_Uuid_base64str(id)));
        }
        Ok(ids)
    }
}

/// # Safety
/// `pointer` is null, or a C string that lives until this returns.
unsafe fn text(pointer: *const std::ffi::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
