//! The requests that are understood, in which versions, and who answers them.

use anyhow::{Context as _, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiKey, ApiVersionsResponse, FetchRequest, FindCoordinatorRequest, InitProducerIdRequest, JoinGroupRequest,
        ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest,
        api_versions_response::ApiVersion,
    },
    protocol::{Decodable, Encodable},
};

use crate::{
    connection::Connection,
    fetch, groups, metadata, offsets, produce,
    shape::{self, Field, Field::*},
};

/// A request.
pub(crate) struct Api {
    key: ApiKey,
    /// The versions that clients are told of; all are below the "flexible" ones, so that there is one encoding.
    min: i16,
    max: i16,
    /// What it consists of, so that its lengths can be looked over.
    fields: &'static [Field],
}

const APIS: [Api; 10] = [
    // 0 to 2 cannot be decoded any more; Kafka 4 lists them too, because older librdkafka would not compress without
    Api { key: ApiKey::Produce, min: 0, max: 8, fields: &[Text, Fixed(6), List(&[Text, List(&[Fixed(4), Blob])])] },
    Api {
        key: ApiKey::Fetch,
        min: 4,
        max: 11,
        fields: &[
            Fixed(17),
            Since(7, &Fixed(8)),
            List(&[Text, List(&[Fixed(4), Since(9, &Fixed(4)), Fixed(8), Since(5, &Fixed(8)), Fixed(4)])]),
            Since(7, &List(&[Text, List(&[Fixed(4)])])),
            Since(11, &Text),
        ],
    },
    Api {
        key: ApiKey::ListOffsets,
        min: 1,
        max: 5,
        fields: &[Fixed(4), Since(2, &Fixed(1)), List(&[Text, List(&[Fixed(4), Since(4, &Fixed(4)), Fixed(8)])])],
    },
    Api { key: ApiKey::Metadata, min: 0, max: 8, fields: &[List(&[Text]), Since(4, &Fixed(1)), Since(8, &Fixed(2))] },
    Api {
        key: ApiKey::OffsetCommit,
        min: 5,
        max: 7,
        fields: &[Text, Fixed(4), Text, Since(7, &Text), List(&[Text, List(&[Fixed(12), Since(6, &Fixed(4)), Text])])],
    },
    Api { key: ApiKey::OffsetFetch, min: 1, max: 5, fields: &[Text, List(&[Text, List(&[Fixed(4)])])] },
    Api { key: ApiKey::FindCoordinator, min: 0, max: 2, fields: &[Text, Since(1, &Fixed(1))] },
    Api {
        key: ApiKey::JoinGroup,
        min: 0,
        max: 5,
        fields: &[Text, Fixed(4), Since(1, &Fixed(4)), Text, Since(5, &Text), Text, List(&[Text, Blob])],
    },
    Api { key: ApiKey::ApiVersions, min: 0, max: 3, fields: &[] },
    Api { key: ApiKey::InitProducerId, min: 0, max: 1, fields: &[Text, Fixed(4)] },
];

/// The answer to a request as a frame, or `None` if the client wants none.
///
/// # Errors
/// It is no request that can be answered: the connection is to be closed.
pub(crate) async fn answer(connection: &mut Connection<'_>, mut frame: Bytes) -> anyhow::Result<Option<BytesMut>> {
    ensure!(frame.len() >= 8, "a frame that is no request");
    let (key, version, correlation) = (frame.get_i16(), frame.get_i16(), frame.get_i32());
    let api = APIS.iter().find(|api| api.key as i16 == key);
    let api = api.with_context(|| format!("request {key} is not understood: it needs a Kafka cluster"))?;
    let to = Asked { version, correlation };
    // what it says of the client is of no use, and its header may be of a version that is not known yet
    if matches!(api.key, ApiKey::ApiVersions) {
        return versions(&to);
    }
    ensure!((api.min..=api.max).contains(&version), "{:?} in version {version}", api.key);
    shape::skip_text(&mut frame).context("the client's name is torn")?;
    shape::check(&frame, api.fields, version).with_context(|| format!("{:?} holds impossible lengths", api.key))?;
    match api.key {
        ApiKey::Produce => {
            match produce::answer(connection.broker, ProduceRequest::decode(&mut frame, version)?).await? {
                Some(response) => to.answer(&response),
                None => Ok(None),
            }
        }
        ApiKey::Fetch => to.answer(&fetch::answer(connection, FetchRequest::decode(&mut frame, version)?).await),
        ApiKey::ListOffsets => {
            to.answer(&offsets::answer(connection.broker, ListOffsetsRequest::decode(&mut frame, version)?).await)
        }
        ApiKey::Metadata => {
            to.answer(&metadata::answer(connection, MetadataRequest::decode(&mut frame, version)?, version))
        }
        ApiKey::InitProducerId => to.answer(&produce::producer(&InitProducerIdRequest::decode(&mut frame, version)?)),
        ApiKey::OffsetFetch => to.answer(&groups::committed(OffsetFetchRequest::decode(&mut frame, version)?)),
        ApiKey::OffsetCommit => {
            to.answer(&groups::commit(connection, OffsetCommitRequest::decode(&mut frame, version)?))
        }
        ApiKey::FindCoordinator => {
            to.answer(&groups::coordinator(connection, &FindCoordinatorRequest::decode(&mut frame, version)?, version))
        }
        _ => to.answer(&groups::join(connection, &JoinGroupRequest::decode(&mut frame, version)?)),
    }
}

/// What an answer needs to know of its request.
struct Asked {
    version: i16,
    correlation: i32,
}

impl Asked {
    fn answer(&self, response: &impl Encodable) -> anyhow::Result<Option<BytesMut>> {
        let mut frame = BytesMut::with_capacity(8 + response.compute_size(self.version)?);
        frame.put_i32(0);
        frame.put_i32(self.correlation);
        response.encode(&mut frame, self.version)?;
        let length = i32::try_from(frame.len() - 4)?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(Some(frame))
    }
}

/// A version that is not known is answered in version 0, with what is known: the client then asks again.
fn versions(to: &Asked) -> anyhow::Result<Option<BytesMut>> {
    let known = |api: &Api| {
        ApiVersion::default().with_api_key(api.key as i16).with_min_version(api.min).with_max_version(api.max)
    };
    let response = ApiVersionsResponse::default().with_api_keys(APIS.iter().map(known).collect());
    if (0..=3).contains(&to.version) {
        return to.answer(&response);
    }
    let to = Asked { version: 0, correlation: to.correlation };
    to.answer(&response.with_error_code(ResponseError::UnsupportedVersion.code()))
}
