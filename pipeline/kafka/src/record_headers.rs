//! A record's headers by way of librdkafka's C interface: rdkafka's own reader panics at a name that is no UTF-8, and such
//! names can be written by all who may write to a topic.

#![allow(unsafe_code, reason = "librdkafka's C interface; each block says why it is sound")]

use std::ffi::CStr;
use std::ptr;

use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message};
use rdkafka_sys as sys;

/// Hands on each header: its name, and its value, empty where there is none. What is no text in a name is replaced.
pub(crate) fn each(message: &BorrowedMessage<'_>, mut take: impl FnMut(&str, &[u8])) {
    let Some(headers) = message.headers() else { return };
    for index in 0..headers.count() {
        let (name, value) = raw(headers, index);
        take(&name.to_string_lossy(), value);
    }
}

fn raw(headers: &BorrowedHeaders, index: usize) -> (&CStr, &[u8]) {
    // rdkafka's own cast the other way round: a `BorrowedHeaders` is the list itself, behind a reference.
    let list: *const sys::rd_kafka_headers_t = ptr::from_ref(headers).cast();
    let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
    // SAFETY: the list lives as long as the message that `headers` borrows from, and is not changed; the name is terminated and the
    // value `size` bytes long, both in the list's own memory.
    unsafe {
        let found = sys::rd_kafka_header_get_all(list, index, &raw mut name, &raw mut value, &raw mut size);
        if found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
            return (c"", &[]);
        }
        let bytes = if value.is_null() { &[][..] } else { std::slice::from_raw_parts(value.cast::<u8>(), size) };
        (CStr::from_ptr(name), bytes)
    }
}
