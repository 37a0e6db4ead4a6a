//! A worker with a model of the clear engine, which encrypts nothing: it comes by the door of all
//! engines, and the worker does not know the difference.

use cipherscore_artifact::clear::{ClearFeature, ClearModel, NOTICE};
use cipherscore_artifact::client_zip::open_client;
use cipherscore_artifact::matrix::Matrix;
use cipherscore_common::JobId;
use cipherscore_common::message::{ErrorCode, Job, JobTerms, Payload, ProtocolVersion};
use cipherscore_common::topology::Lane;

use crate::support::{InProcess, Services};

const ROWS: u32 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_another_engine_is_served_like_any_other() {
    let features = vec![ClearFeature { name: "amount".into(), weight: -0.5 }];
    let zips = ClearModel { features, intercept: 2.0 }.zips().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("clear.zip"), &zips.server).unwrap();
    let services = InProcess::default();
    let worker =
        services.start_worker(|config| config.models.folder = Some(folder.path().to_owned())).await;
    let mut tester = services.tester("clear").await;

    let model = open_client(&zips.client).unwrap();
    tester.wait_for_worker(model.model_id().unwrap()).await;
    let keys = model.make_keys(&|| ()).unwrap();
    let encryption = std::sync::Arc::clone(&model).with_key(&keys.client).unwrap();
    let rows = Matrix::new(1, (0..ROWS).map(f64::from).collect());
    let body = encryption.encrypt(&rows).unwrap().body;
    let job = |rows, body| Job {
        version: ProtocolVersion::V2,
        id: JobId::random(),
        tenant: tester.tenant.clone(),
        reply_to: tester.reply_to.clone(),
        correlation_id: None,
        model_id: model.model_id().unwrap(),
        lane: Lane::Normal,
        key_id: None,
        rows,
        deadline: None,
        terms: JobTerms::default(),
        attempt: 0,
        trace: None,
        payload: Payload::Inline(body),
    };
    let (inline, mut stored) = (job(ROWS, body.clone()), job(ROWS, body.clone()));
    let wrong = job(ROWS - 1, body[..body.len() - 8].iter().map(|byte| byte ^ 1).collect());
    tester.store_payload(&mut stored).await;
    for job in [&inline, &stored] {
        tester.publish(job).await;
        let reply = tester.reply().await;
        assert_eq!(reply.job, job.id);
        let outputs = tester.outputs(&reply).await;
        assert!(outputs.starts_with(NOTICE));
        let integers = encryption.decrypt(&outputs, ROWS, None).unwrap();
        for (row, integers) in integers.rows().enumerate() {
            assert_eq!(model.scores(integers).unwrap(), [2.0 - row as f64 / 2.0]);
        }
    }
    let said = tester.expect_failure(&wrong, ErrorCode::WrongShape).await;
    assert!(said.contains("not encrypted"), "{said}");
    drop(worker);
}
