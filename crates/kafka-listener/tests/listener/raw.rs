//! Requests frame by frame.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiKey, ProduceRequest, ProduceResponse, RequestHeader,
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::PartitionProduceResponse,
    },
    protocol::{Encodable, Request, StrBytes},
    records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{EVENTS, Listener, within};

pub struct Raw(pub TcpStream);

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

impl Raw {
    pub async fn connect(listener: &Listener) -> Self {
        Self(TcpStream::connect(listener.address).await.unwrap())
    }

    pub async fn send<R: Request>(&mut self, request: &R, version: i16) {
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        let key = ApiKey::try_from(R::KEY).unwrap();
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(7)
            .with_client_id(Some(text("raw")));
        header.encode(&mut frame, key.request_header_version(version)).unwrap();
        request.encode(&mut frame, version).unwrap();
        let length = i32::try_from(frame.len() - 4).unwrap();
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.0.write_all(&frame).await.unwrap();
    }

    /// The next answer without its header, or `None` when the connection has been closed.
    pub async fn receive(&mut self) -> Option<Bytes> {
        let length = within("an answer", self.0.read_i32()).await.ok()?;
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        within("the whole answer", self.0.read_exact(&mut frame)).await.ok()?;
        let mut frame = Bytes::from(frame);
        assert_eq!(frame.get_i32(), 7, "the request's correlation id");
        Some(frame)
    }

    pub async fn ask<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.send(request, version).await;
        let mut answer = self.receive().await.expect("an answer");
        let response = kafka_protocol::protocol::Decodable::decode(&mut answer, version).expect("a response");
        assert!(answer.is_empty(), "bytes are left over");
        response
    }

    pub async fn produce(&mut self, topic: &str, index: i32, batch: Bytes) -> PartitionProduceResponse {
        let mut response: ProduceResponse = self.ask(&produce(topic, index, batch), 8).await;
        response.responses.remove(0).partition_responses.remove(0)
    }

    /// Nothing more comes: the other side has closed the connection, and said nothing before.
    pub async fn closed(mut self) {
        let mut byte = [0];
        match within("the end of the connection", self.0.read(&mut byte)).await {
            Ok(read) => assert_eq!(read, 0, "an answer"),
            Err(reset) => assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

pub fn produce(topic: &str, index: i32, batch: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(index).with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(text(topic).into()).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(1000).with_topic_data(vec![topic])
}

/// A batch as Java's client makes it: id and epoch of the producer, the number of the first record, the values.
pub fn batch(producer: (i64, i16, i32), values: &[&str], compression: Compression) -> Bytes {
    let record = |(at, value): (usize, &&str)| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: producer.0,
        producer_epoch: producer.1,
        timestamp_type: TimestampType::Creation,
        offset: i64::try_from(at).unwrap(),
        sequence: producer.2.wrapping_add(i32::try_from(at).unwrap()),
        timestamp: 1,
        key: None,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Default::default(),
    };
    let records: Vec<Record> = values.iter().enumerate().map(record).collect();
    let mut batch = BytesMut::new();
    RecordBatchEncoder::encode(&mut batch, &records, &RecordEncodeOptions { version: 2, compression }).unwrap();
    batch.freeze()
}

/// A batch of somebody who numbers nothing.
pub fn plain(values: &[&str]) -> Bytes {
    // with a sequence that goes along, or the encoder would make several batches
    batch((-1, -1, 0), values, Compression::None)
}

/// A produced record arrives: the listener works.
pub async fn assert_well(listener: &Listener) {
    let mut raw = Raw::connect(listener).await;
    let before = listener.written();
    assert_eq!(raw.produce(EVENTS, 0, plain(&["well"])).await.error_code, 0);
    assert!(listener.written() > before);
}
