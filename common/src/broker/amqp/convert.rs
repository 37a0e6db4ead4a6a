//! Messages as lapin has them, and back.

use std::time::{SystemTime, UNIX_EPOCH};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString, ShortStringError};

use crate::message::{HeaderValue, Message};

/// What a message without another content type says.
const BYTES: &str = "application/octet-stream";
const PERSISTENT: u8 = 2;
/// Headers with this prefix are the broker's: how often it delivered a message, and why it
/// dead-lettered it. Published again, they would tell about the message before.
const BROKERS_PREFIX: &str = "x-";
const DELIVERY_COUNT: &str = "x-delivery-count";

/// The properties of a message; an error when a text is too long for AMQP.
pub(super) fn properties(
    message: &Message,
    user: Option<&str>,
) -> Result<BasicProperties, ShortStringError> {
    let mut table = FieldTable::default();
    for (name, value) in &message.headers {
        let value = match value {
            HeaderValue::Text(text) => AMQPValue::LongString(text.as_str().into()),
            HeaderValue::Integer(number) => AMQPValue::LongLongInt(*number),
        };
        table.insert(ShortString::try_new(name.as_str())?, value);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut properties = BasicProperties::default()
        .with_content_type(ShortString::try_new(message.content_type.as_deref().unwrap_or(BYTES))?)
        .with_delivery_mode(PERSISTENT)
        .with_app_id(concat!("cipherscore/", env!("CARGO_PKG_VERSION")).into())
        .with_timestamp(now.as_secs())
        .with_headers(table);
    let short = |text: &Option<String>| text.as_ref().map(ShortString::try_new).transpose();
    if let Some(kind) = short(&message.kind)? {
        properties = properties.with_type(kind);
    }
    if let Some(id) = short(&message.message_id)? {
        properties = properties.with_message_id(id);
    }
    if let Some(id) = short(&message.correlation_id)? {
        properties = properties.with_correlation_id(id);
    }
    if let Some(queue) = short(&message.reply_to)? {
        properties = properties.with_reply_to(queue);
    }
    if let Some(user) = message.user_id.as_deref().or(user) {
        properties = properties.with_user_id(ShortString::try_new(user)?);
    }
    Ok(properties)
}

/// What arrived, and how often it came back before.
pub(super) fn message(delivery: lapin::message::Delivery) -> (Message, u32) {
    let properties = delivery.properties;
    let headers = properties.headers().as_ref().map(FieldTable::inner);
    let count = headers.and_then(|headers| headers.get(DELIVERY_COUNT)).and_then(header);
    let returned = match count {
        // Who publishes a message can set the header, but not the broker's flag.
        _ if !delivery.redelivered => 0,
        Some(HeaderValue::Integer(count)) => u32::try_from(count.max(1)).unwrap_or(u32::MAX),
        _ => 1,
    };
    let own = headers.into_iter().flatten();
    let own = own.filter(|(name, _)| !name.as_str().starts_with(BROKERS_PREFIX));
    let headers = own.filter_map(|(name, value)| Some((name.to_string(), header(value)?)));
    let text = |text: &Option<ShortString>| text.as_ref().map(ToString::to_string);
    let message = Message {
        exchange: delivery.exchange.into(),
        routing_key: delivery.routing_key.into(),
        content_type: text(properties.content_type()).filter(|kind| kind != BYTES),
        kind: text(properties.kind()),
        message_id: text(properties.message_id()),
        correlation_id: text(properties.correlation_id()),
        reply_to: text(properties.reply_to()),
        user_id: text(properties.user_id()),
        headers: headers.collect(),
        body: delivery.data,
    };
    (message, returned)
}

/// The value of a header, if it is of a kind that we use.
fn header(value: &AMQPValue) -> Option<HeaderValue> {
    let number = match value {
        AMQPValue::LongString(text) => {
            return Some(std::str::from_utf8(text.as_bytes()).ok()?.into());
        }
        AMQPValue::ShortString(text) => return Some(text.as_str().into()),
        AMQPValue::ShortShortInt(number) => (*number).into(),
        AMQPValue::ShortShortUInt(number) => (*number).into(),
        AMQPValue::ShortInt(number) => (*number).into(),
        AMQPValue::ShortUInt(number) => (*number).into(),
        AMQPValue::LongInt(number) => (*number).into(),
        AMQPValue::LongUInt(number) => (*number).into(),
        AMQPValue::LongLongInt(number) => *number,
        _ => return None,
    };
    Some(HeaderValue::Integer(number))
}

#[cfg(test)]
mod tests {
    use lapin::message::Delivery;

    use super::*;

    fn arrived(redelivered: bool, headers: &[(&str, AMQPValue)]) -> (Message, u32) {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), value.clone());
        }
        let mut delivery = Delivery::mock(1, "cs.jobs".into(), "q".into(), redelivered, vec![1]);
        delivery.properties = BasicProperties::default().with_headers(table);
        message(delivery)
    }

    #[test]
    fn headers_of_every_length_are_read_and_other_kinds_left_out() {
        let (message, _) = arrived(
            false,
            &[
                ("a", AMQPValue::ShortShortInt(-1)),
                ("b", AMQPValue::ShortShortUInt(255)),
                ("c", AMQPValue::ShortInt(-3)),
                ("d", AMQPValue::ShortUInt(4)),
                ("e", AMQPValue::LongInt(-5)),
                ("f", AMQPValue::LongUInt(u32::MAX)),
                ("g", AMQPValue::LongLongInt(i64::MIN)),
                ("h", AMQPValue::LongString("text".into())),
                ("i", AMQPValue::ShortString("text".into())),
                ("j", AMQPValue::LongString(vec![0xff].into())),
                ("k", AMQPValue::Boolean(true)),
                ("l", AMQPValue::FieldTable(FieldTable::default())),
                ("x-death", AMQPValue::LongString("the broker's".into())),
            ],
        );
        let numbers = [-1, 255, -3, 4, -5, i64::from(u32::MAX), i64::MIN];
        let names = ["a", "b", "c", "d", "e", "f", "g"].into_iter();
        let mut expected: std::collections::BTreeMap<String, HeaderValue> =
            names.map(Into::into).zip(numbers.map(HeaderValue::Integer)).collect();
        expected.insert("h".into(), "text".into());
        expected.insert("i".into(), "text".into());
        assert_eq!(message.headers, expected);
    }

    #[test]
    fn only_the_broker_says_how_often_it_came_back() {
        let count = [("x-delivery-count", AMQPValue::LongInt(3))];
        assert_eq!(arrived(true, &count).1, 3);
        assert_eq!(arrived(false, &count).1, 0);
        assert_eq!(arrived(true, &[]).1, 1);
        assert_eq!(arrived(true, &[("x-delivery-count", AMQPValue::LongInt(-1))]).1, 1);
    }

    #[test]
    fn what_is_too_long_for_amqp_is_refused() {
        let long = || "x".repeat(256);
        let wrong = [
            Message { kind: Some(long()), ..Message::default() },
            Message { reply_to: Some(long()), ..Message::default() },
            Message { headers: [(long(), 1_u32.into())].into(), ..Message::default() },
        ];
        for message in wrong {
            assert!(properties(&message, None).is_err());
        }
    }
}
