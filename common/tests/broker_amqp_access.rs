//! Whom RabbitMQ lets in over AMQP, and to what: passwords, permissions and certificates.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod amqp;

use amqp::{broker, declare, message, normal, random_model, reply, reply_queue, take};
use cipherscore_common::JobId;
use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig, InvalidAmqpConfig};
use cipherscore_common::broker::{Broker, BrokerError, QueuePrefetch};
use cipherscore_common::message::Message;
use cipherscore_common::topology::{DEAD, Declare, Topology};
use cipherscore_testbed::{Certificates, RabbitMq, RabbitMqOptions, Tls, User};

async fn refusal(config: AmqpConfig) -> BrokerError {
    AmqpBroker::new(config).unwrap().queue_state("q").await.unwrap_err()
}

#[tokio::test]
async fn both_sides_must_be_known() {
    let certificates = Certificates::make().unwrap();
    let tls = Tls { certificates: certificates.clone(), require_client_certificate: true };
    let options = RabbitMqOptions { tls: Some(tls), ..RabbitMqOptions::default() };
    let node = RabbitMq::start_with(options).unwrap();
    let config = AmqpConfig::parse(&node.tls_url().unwrap()).unwrap();
    let trusting = config.clone().with_authority(&certificates.authority()).unwrap();
    let known = trusting
        .clone()
        .with_client_certificate(&certificates.client_certificate(), &certificates.client_key());

    let (broker, model) = (AmqpBroker::new(known.clone().unwrap()).unwrap(), random_model());
    declare(&broker, model).await;
    let sent = message(model);
    broker.publish(&sent).await.unwrap();
    assert_eq!(take(&broker, normal(model, 1)).await.body, sent.body);

    assert_eq!(AmqpBroker::new(config.clone()).err(), Some(InvalidAmqpConfig::Authority));
    let error = refusal(trusting).await;
    assert!(!error.to_string().contains(node.password()), "{error}");
    assert!(matches!(error, BrokerError::Refused { .. }), "without a certificate: {error}");

    let others = Certificates::make().unwrap();
    let misled = config.with_authority(&others.authority()).unwrap();
    let misled = misled
        .with_client_certificate(&certificates.client_certificate(), &certificates.client_key());
    let error = refusal(misled.unwrap()).await;
    assert!(matches!(error, BrokerError::Refused { .. }), "another authority: {error}");

    // TLS where there is none.
    let plain = node.address().port();
    let port = node.tls_url().unwrap().replace("amqps://", "");
    let port = port.rsplit_once(':').unwrap().1.split('/').next().unwrap().to_owned();
    let url = node.tls_url().unwrap().replace(&format!(":{port}/"), &format!(":{plain}/"));
    let config = AmqpConfig::parse(&url).unwrap();
    let error = refusal(config.with_authority(&certificates.authority()).unwrap()).await;
    assert!(error.to_string().contains(&format!("127.0.0.1:{plain}")), "{error}");

    let plain = AmqpConfig::parse(&node.url()).unwrap();
    let plain = plain.with_authority(&certificates.authority()).unwrap();
    assert_eq!(AmqpBroker::new(plain).err(), Some(InvalidAmqpConfig::Plain));
}

/// What RabbitMQ's plugin for SASL EXTERNAL does when a node starts with it.
const EXTERNAL: &str = r#"
    Plugin = "/usr/lib/rabbitmq/lib/*/plugins/rabbitmq_auth_mechanism_ssl-*/ebin",
    ok = code:add_pathsa(filelib:wildcard(Plugin)),
    ok = application:load(rabbitmq_auth_mechanism_ssl),
    rabbit_registry:register(auth_mechanism, <<"EXTERNAL">>, rabbit_auth_mechanism_ssl),
    application:set_env(rabbit, ssl_cert_login_from, common_name),
    application:set_env(rabbit, auth_mechanisms, ['PLAIN', 'EXTERNAL'])."#;

#[tokio::test]
async fn without_a_password_the_certificate_says_who_we_are() {
    let certificates = Certificates::make().unwrap();
    let tls = Tls { certificates: certificates.clone(), require_client_certificate: true };
    let options = RabbitMqOptions { tls: Some(tls), ..RabbitMqOptions::default() };
    let node = RabbitMq::start_with(options).unwrap();
    node.ctl(&["eval", EXTERNAL]).unwrap();
    let user = User {
        name: "cipherscore-client",
        password: "not used",
        configure: ".*",
        write: ".*",
        read: ".*",
        ..User::default()
    };
    node.add_user(&user).unwrap();
    let url = node.tls_url_for("", "").unwrap().replace(":@", "");
    let config = AmqpConfig::parse(&url).unwrap();
    let config = config.with_authority(&certificates.authority()).unwrap();
    let config = config
        .with_client_certificate(&certificates.client_certificate(), &certificates.client_key());
    let (broker, model) = (AmqpBroker::new(config.unwrap()).unwrap(), random_model());
    declare(&broker, model).await;
    broker.publish(&message(model)).await.unwrap();
    // What the broker calls us is its own affair, so we do not say.
    assert_eq!(take(&broker, normal(model, 1)).await.user_id, None);
}

#[tokio::test]
async fn who_may_not_is_refused_without_repeating_the_password() {
    let node = RabbitMq::start().unwrap();
    let (well, model) = (broker(&node.url()), random_model());
    declare(&well, model).await;
    let stranger = broker(&node.url_for(RabbitMq::USER, "s3cret"));
    let error = stranger.publish(&message(model)).await.unwrap_err();
    assert!(matches!(error, BrokerError::Refused { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("s3cret"));
    let error = broker(&node.url().replace("%2f", "elsewhere")).queue_state("q").await.unwrap_err();
    assert!(matches!(error, BrokerError::Refused { .. }), "{error}");

    let user = User {
        name: "worker",
        password: "w0rk",
        write: r"^cs\.replies$",
        read: r"^cs\.jobs\.",
        ..User::default()
    };
    node.add_user(&user).unwrap();
    let worker = broker(&node.url_for(user.name, user.password));
    let impostor = Message { user_id: Some("ann".into()), ..reply_to_nobody() };
    let refused = [
        worker.publish(&message(model)).await,
        worker.publish(&impostor).await,
        worker.declare(&Topology::of_model(random_model()), Declare::Create).await,
        worker.subscribe(&[QueuePrefetch { queue: DEAD.into(), prefetch: 1 }]).await.map(drop),
    ];
    for result in refused {
        assert!(matches!(result, Err(BrokerError::Refused { .. })), "{result:?}");
    }
    worker.publish(&reply_to_nobody()).await.unwrap();
    well.publish(&message(model)).await.unwrap();
    take(&worker, normal(model, 1)).await;
}

/// Goes nowhere that another test looks.
fn reply_to_nobody() -> Message {
    let mut message = reply(JobId::random()).to_message(&reply_queue());
    message.exchange = "cs.replies".into();
    message
}
