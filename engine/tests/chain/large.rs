//! A block with more in it than a node hands out at once.

use super::*;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_with_more_events_than_a_node_hands_out_at_once_is_read_in_parts() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    for _ in 0..3 {
        shop.buy().await;
    }
    let n = U256::from;
    shop.anvil.ask("evm_setAutomine", json!([false])).await;
    let pos = BlockhostSubscriptions::new(shop.pos, shop.anvil.account(0));
    let mut sent = Vec::new();
    for _ in 0..4 {
        let bought = pos.buySubscription(n(1), n(1), n(1), Bytes::from(vec![7; 2000]));
        sent.push(bought.gas(500_000).send().await.unwrap());
    }
    for id in 1..=3 {
        let extended = pos.extendSubscription(n(id), n(2), n(1));
        sent.push(extended.gas(300_000).send().await.unwrap());
    }
    let planned = pos.createPlan("large".into(), n(100));
    sent.push(planned.gas(300_000).send().await.unwrap());
    shop.anvil.ask("anvil_mine", json!([1])).await;
    let mut blocks = Vec::new();
    for one in sent {
        let receipt = one.get_receipt().await.unwrap();
        assert!(receipt.status(), "{receipt:?}");
        blocks.push(receipt.block_number);
    }
    blocks.dedup();
    assert_eq!(blocks.len(), 1);

    let seen = |outbox: &Outbox| -> Vec<(String, u64, String)> {
        let jobs = outbox.list(None, 1000).unwrap().into_iter();
        jobs.map(|job| (job.event, job.subscription_id, job.tx_hash))
            .collect()
    };
    shop.catch_up(&mut shop.monitor(0, 1000)).await;
    let port = common::liar::bent(shop.anvil.port, |request, answer| {
        let logs = answer["result"].as_array().map_or(0, Vec::len);
        if request["method"] == "eth_getLogs" && logs > 1 {
            let error = json!({"code": -32602, "message": "query returned more than 1 results"});
            *answer = json!({"jsonrpc": "2.0", "id": request["id"], "error": error});
        }
    });
    let stingy = Chain::new(31337, &[format!("http://127.0.0.1:{port}")], TIMEOUT).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let outbox = Arc::new(Outbox::open(&dir.path().join("outbox.db")).unwrap());
    let mut monitor = Monitor::new(shop.pos, 0, Start::Block(0), 1000, outbox.clone());
    while !monitor.look(&stingy).await.unwrap().caught_up {}
    let all = seen(&outbox);
    assert_eq!(all, seen(&shop.outbox));
    let of = |event: &str| all.iter().filter(|one| one.0 == event).count();
    assert_eq!(
        (of("SubscriptionCreated"), of("SubscriptionExtended")),
        (7, 3)
    );
}
