// SPDX-License-Identifier: Apache-2.0
// The service as a client of another make sees it: raw gRPC, right and wrong.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <functional>
#include <limits>
#include <memory>

#include "client/src/batch_data.h"
#include "shared/base/paths.h"
#include "shared/segment/header.h"
#include "shared/segment/segment.h"
#include "stoker/v1/service.grpc.pb.h"
#include "tests/integration/fixture.h"

namespace stoker {
namespace {

using ::testing::HasSubstr;
using testing::IntegrationTest;
using testing::MakeSamples;
using testing::Read;
using testing::ReadEpoch;
using testing::StatusIs;

absl::Status ToStatus(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

// One Session call.
class RawSession {
 public:
  explicit RawSession(v1::Stoker::Stub* stub) {
    context_.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(60)));
    stream_ = stub->Session(&context_);
  }
  ~RawSession() {
    context_.TryCancel();
    if (!finished_) (void)stream_->Finish();  // it was cancelled
  }

  void Open(const std::string& dataset, uint32_t credits,
            const std::function<void(v1::SessionRequest::Open*)>& change = {}) {
    v1::SessionRequest request;
    request.mutable_open()->set_dataset(dataset);
    request.mutable_open()->mutable_plan()->set_batch_size(4);
    request.mutable_open()->set_credits(credits);
    if (change) change(request.mutable_open());
    stream_->Write(request);
  }
  void Advance(const std::vector<uint64_t>& release, uint32_t credits) {
    v1::SessionRequest request;
    for (const uint64_t lease : release) request.mutable_advance()->add_release(lease);
    request.mutable_advance()->set_credits(credits);
    stream_->Write(request);
  }
  void Seek(uint64_t epoch, uint64_t step, uint32_t credits, const std::vector<uint64_t>& release = {}) {
    v1::SessionRequest request;
    request.mutable_seek()->mutable_position()->set_epoch(epoch);
    request.mutable_seek()->mutable_position()->set_step(step);
    request.mutable_seek()->set_credits(credits);
    for (const uint64_t lease : release) request.mutable_seek()->add_release(lease);
    stream_->Write(request);
  }
  void Write(const v1::SessionRequest& request) { stream_->Write(request); }
  void WritesDone() { stream_->WritesDone(); }

  // An empty message at the end of the stream.
  v1::SessionReply Next() {
    v1::SessionReply reply;
    return stream_->Read(&reply) ? reply : v1::SessionReply();
  }
  // The end of the call, or what `failed` said.
  absl::Status End() {
    v1::SessionReply reply;
    absl::Status failed;
    while (stream_->Read(&reply)) {
      if (reply.has_failed())
        failed = absl::Status(static_cast<absl::StatusCode>(reply.failed().code()), reply.failed().message());
    }
    finished_ = true;
    const grpc::Status status = stream_->Finish();
    return failed.ok() ? ToStatus(status) : failed;
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::SessionRequest, v1::SessionReply>> stream_;
  bool finished_ = false;
};

// A data set `small` of 10 samples, one channel of 20 points.
class ProtocolTest : public IntegrationTest {
 protected:
  void Start(const std::vector<std::string>& extra = {}) {
    ASSERT_NO_FATAL_FAILURE(StartDaemon({.extra = extra}));
    IngestSamples("small", MakeSamples(10, 1, 20));
    channel_ = grpc::CreateChannel("unix:" + daemon().address(), grpc::InsecureChannelCredentials());
    stub_ = v1::Stoker::NewStub(channel_);
  }
  v1::Stoker::Stub* stub() { return stub_.get(); }

  absl::StatusOr<std::string> Fetch(uint64_t session, uint64_t token, uint64_t lease) {
    grpc::ClientContext context;
    v1::FetchRequest request;
    request.set_session(session);
    request.set_token(token);
    request.set_lease(lease);
    const auto reader = stub_->Fetch(&context, request);
    std::string bytes;
    v1::FetchChunk chunk;
    while (reader->Read(&chunk)) {
      EXPECT_EQ(chunk.offset_bytes(), bytes.size());
      bytes += chunk.data();
    }
    const absl::Status status = ToStatus(reader->Finish());
    if (!status.ok()) return status;
    return bytes;
  }
  absl::Status IngestStatus(const v1::IngestRequest& request) {
    grpc::ClientContext context;
    const auto reader = stub_->Ingest(&context, request);
    v1::IngestEvent event;
    while (reader->Read(&event)) {
    }
    return ToStatus(reader->Finish());
  }
  // All is as before: the daemon serves, and the data set can be read.
  void ExpectServing() {
    EXPECT_THAT(client().Health(), testing::IsOkAndHolds(true));
    EXPECT_EQ(ReadAll(Read("small", 4)).size(), 3u);
  }

  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Stoker::Stub> stub_;
};

// ---- sessions ----

TEST_F(ProtocolTest, Session_OpenThenCredits_BringsBatchesInOrderAndTheEndOfTheEpoch) {
  ASSERT_NO_FATAL_FAILURE(Start());
  RawSession session(stub());
  session.Open("small", 2);
  const v1::SessionReply::Opened opened = session.Next().opened();
  EXPECT_EQ(opened.samples(), 10u);
  EXPECT_EQ(opened.steps_per_epoch(), 3u);
  EXPECT_EQ(opened.lease_limit(), 64u);
  EXPECT_EQ(opened.kind(), v1::TIME_SERIES);
  EXPECT_EQ(opened.recipe_digest().size(), 16u);
  ASSERT_EQ(opened.schema_size(), 4);
  EXPECT_EQ(opened.schema(0).name(), "gasf");
  EXPECT_EQ(session.Next().ready().batch().step(), 0u);
  EXPECT_EQ(session.Next().ready().batch().step(), 1u);
  session.Advance({}, 2);
  EXPECT_EQ(session.Next().ready().batch().step(), 2u);
  EXPECT_EQ(session.Next().end_of_epoch().epoch(), 0u);
  const v1::SessionReply next = session.Next();
  EXPECT_EQ(next.ready().batch().epoch(), 1u);
  EXPECT_EQ(next.ready().batch().step(), 0u);
}

TEST_F(ProtocolTest, Session_AtTheEndOfAnEpoch_SaysSoFirst) {
  ASSERT_NO_FATAL_FAILURE(Start());
  RawSession session(stub());
  session.Open("small", 1, [](v1::SessionRequest::Open* open) { open->mutable_position()->set_step(3); });
  EXPECT_TRUE(session.Next().has_opened());
  EXPECT_TRUE(session.Next().has_end_of_epoch());
  EXPECT_EQ(session.Next().ready().batch().epoch(), 1u);
}

TEST_F(ProtocolTest, Session_WithoutOpen_IsRefused) {
  ASSERT_NO_FATAL_FAILURE(Start());
  RawSession advance(stub());
  advance.Advance({}, 1);
  EXPECT_THAT(advance.End(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("Open")));
  RawSession seek(stub());
  seek.Seek(0, 0, 1);
  EXPECT_THAT(seek.End(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("Open")));
  RawSession empty(stub());
  empty.Write(v1::SessionRequest());
  EXPECT_THAT(empty.End(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("Open")));
  ExpectServing();
}

TEST_F(ProtocolTest, Session_WithTwoOpens_IsEndedAndItsLeasesAreBack) {
  ASSERT_NO_FATAL_FAILURE(Start());
  RawSession session(stub());
  session.Open("small", 2);
  EXPECT_TRUE(session.Next().has_opened());
  session.Open("small", 2);
  EXPECT_THAT(session.End(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("Open")));
  EXPECT_TRUE(testing::Eventually([&] { return Status().sessions().empty(); }));
  EXPECT_EQ(Status().arena().extents().leased(), 0u);
}

TEST_F(ProtocolTest, Session_ThatReleasesAForeignLease_IsEndedAndTheLeaseStays) {
  ASSERT_NO_FATAL_FAILURE(Start());
  RawSession owner(stub());
  owner.Open("small", 1);
  EXPECT_TRUE(owner.Next().has_opened());
  const uint64_t lease = owner.Next().ready().lease();
  RawSession thief(stub());
  thief.Open("small", 0);
  EXPECT_TRUE(thief.Next().has_opened());
  thief.Advance({lease}, 0);
  EXPECT_THAT(thief.End(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("lease")));
  EXPECT_EQ(Status().arena().extents().leased(), 1u);
  owner.Advance({lease}, 1);
  EXPECT_EQ(owner.Next().ready().batch().step(), 1u);
}

TEST_F(ProtocolTest, Session_ThatReleasesTwice_IsEnded) {
  ASSERT_NO_FATAL_FAILURE(Start());
  RawSession session(stub());
  session.Open("small", 1);
  EXPECT_TRUE(session.Next().has_opened());
  const uint64_t lease = session.Next().ready().lease();
  session.Advance({lease, lease}, 0);
  EXPECT_THAT(session.End(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("lease")));
}

TEST_F(ProtocolTest, Session_HalfClosed_EndsAndReturnsItsLeases) {
  ASSERT_NO_FATAL_FAILURE(Start());
  RawSession session(stub());
  session.Open("small", 2);
  EXPECT_TRUE(session.Next().has_opened());
  session.WritesDone();
  EXPECT_OK(session.End());
  EXPECT_TRUE(testing::Eventually([&] { return Status().sessions().empty(); }));
  EXPECT_EQ(Status().arena().extents().leased(), 0u);
}

TEST_F(ProtocolTest, Seek_IsAnsweredInOrder_AndLeasesThatItDoesNotNameStay) {
  ASSERT_NO_FATAL_FAILURE(Start());
  RawSession session(stub());
  session.Open("small", 2);
  EXPECT_TRUE(session.Next().has_opened());
  const uint64_t first = session.Next().ready().lease();
  const v1::SessionReply::Ready second = session.Next().ready();
  session.Seek(5, 2, 2, {first});
  EXPECT_EQ(session.Next().sought().steps_per_epoch(), 3u);
  const v1::SessionReply::Ready third = session.Next().ready();
  EXPECT_EQ(third.batch().epoch(), 5u);
  EXPECT_EQ(third.batch().step(), 2u);
  EXPECT_EQ(session.Next().end_of_epoch().epoch(), 5u);
  EXPECT_EQ(session.Next().ready().batch().epoch(), 6u);
  EXPECT_EQ(Status().sessions(0).leases(), 3u);
  session.Seek(0, 1, 1, {second.lease(), third.lease()});
  EXPECT_TRUE(session.Next().has_sought());
  EXPECT_EQ(session.Next().ready().batch().extent_offset_bytes(), second.batch().extent_offset_bytes());  // as it was
  session.Seek(0, 3, 0);
  EXPECT_TRUE(session.Next().has_sought());
  EXPECT_EQ(session.Next().end_of_epoch().epoch(), 0u);
}

TEST_F(ProtocolTest, Seek_OutsideThePlan_EndsTheSessionAndItsLeasesAreBack) {
  ASSERT_NO_FATAL_FAILURE(Start());
  RawSession session(stub());
  session.Open("small", 2);
  EXPECT_TRUE(session.Next().has_opened());
  session.Seek(5, 4, 2);
  EXPECT_THAT(session.End(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("position.step: 4")));
  EXPECT_TRUE(testing::Eventually([&] { return Status().sessions().empty(); }));
  EXPECT_EQ(Status().arena().extents().leased(), 0u);
  RawSession greedy(stub());
  greedy.Open("small", 0);
  EXPECT_TRUE(greedy.Next().has_opened());
  greedy.Seek(0, 0, 65537);
  EXPECT_THAT(greedy.End(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("credits")));
  ExpectServing();
}

// ---- announcements ----

TEST_F(ProtocolTest, Announce_SeveralBatchesInAMessage_AndEachIsThereWithItsSequence) {
  ASSERT_NO_FATAL_FAILURE(Start());
  RawSession session(stub());
  session.Open("small", 1);
  EXPECT_TRUE(session.Next().has_opened());
  EXPECT_TRUE(session.Next().has_ready());
  v1::SessionRequest request;
  request.mutable_advance()->set_credits(2);
  request.mutable_advance()->set_announce(true);
  session.Write(request);
  const v1::SessionReply reply = session.Next();
  ASSERT_TRUE(reply.has_ready());
  ASSERT_EQ(reply.following_size(), 1);
  EXPECT_EQ(reply.ready().batch().step(), 1u);
  EXPECT_EQ(reply.following(0).batch().step(), 2u);
  for (const v1::BatchDescriptor* batch : {&reply.ready().batch(), &reply.following(0).batch()}) {
    ASSERT_OK_AND_ASSIGN(const segment::MappedSegment mapped, segment::MappedSegment::MapReadOnly(batch->segment()));
    const uint8_t* const extent = mapped.data() + batch->extent_offset_bytes();
    EXPECT_TRUE(testing::Eventually([&] { return segment::ReadSequence(extent) == batch->sequence(); }));
  }
  EXPECT_EQ(session.Next().end_of_epoch().epoch(), 0u);
}

// ---- copies in a device's memory ----

// Opens "small" with one credit; the lease of its first batch.
uint64_t FirstLease(RawSession* session) {
  session->Open("small", 1);
  EXPECT_TRUE(session->Next().has_opened());
  return session->Next().ready().lease();
}

v1::SessionRequest ClaimOf(uint64_t lease, const std::string& device = "gpu") {
  v1::SessionRequest request;
  request.mutable_claim()->set_lease(lease);
  request.mutable_claim()->set_device(device);
  request.mutable_claim()->set_may_offer(true);
  return request;
}

TEST_F(ProtocolTest, Claims_OneUploads_TheOtherIsToldWhere_AndTheUploaderWhenItIsFree) {
  ASSERT_NO_FATAL_FAILURE(Start());
  RawSession first(stub()), second(stub());
  const uint64_t lease = FirstLease(&first), other = FirstLease(&second);
  first.Write(ClaimOf(lease));
  EXPECT_TRUE(first.Next().claimed().offer());
  second.Write(ClaimOf(other));
  v1::SessionRequest offer, withdraw;
  offer.mutable_offer()->set_claim(lease);
  offer.mutable_offer()->set_memory("there");
  first.Write(offer);
  const v1::SessionReply::Claimed told = second.Next().claimed();
  EXPECT_EQ(told.lease(), other);
  EXPECT_EQ(told.memory(), "there");
  EXPECT_FALSE(told.offer());
  withdraw.mutable_withdraw()->set_claim(lease);
  first.Write(withdraw);
  second.Advance({other}, 0);
  EXPECT_EQ(first.Next().copy_free().claim(), lease);
}

TEST_F(ProtocolTest, Claim_OfALeaseThatIsNotHeld_EndsTheSession) {
  ASSERT_NO_FATAL_FAILURE(Start());
  RawSession owner(stub()), thief(stub());
  const uint64_t lease = FirstLease(&owner);
  EXPECT_GT(FirstLease(&thief), 0u);
  thief.Write(ClaimOf(lease));
  EXPECT_THAT(thief.End(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is not held")));
  owner.Write(ClaimOf(lease, /*device=*/""));
  EXPECT_THAT(owner.End(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("claim.device")));
}

// Who waited in vain has uploaded the batch for itself. When the one that it waited for goes, it is asked to upload for
// others: too late, so the next one is.
TEST_F(ProtocolTest, ClaimAnsweredTooLate_IsWithdrawnByTheClient) {
  ASSERT_NO_FATAL_FAILURE(Start());
  auto lazy = std::make_unique<RawSession>(stub());
  RawSession last(stub());
  lazy->Write(ClaimOf(FirstLease(lazy.get())));
  ASSERT_TRUE(lazy->Next().claimed().offer());
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(Read("small", 4)));
  ASSERT_OK_AND_ASSIGN(const std::optional<Batch> batch, loader.Next(absl::Seconds(60)));
  ASSERT_TRUE(batch.has_value());
  const client::BatchData& data = *batch->data();
  EXPECT_THAT(data.owner()->Claim(data.lease(), "gpu", true, absl::Now() + absl::Milliseconds(50)),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  const uint64_t lease = FirstLease(&last);
  last.Write(ClaimOf(lease));
  lazy.reset();
  const v1::SessionReply::Claimed told = last.Next().claimed();
  EXPECT_EQ(told.lease(), lease);
  EXPECT_TRUE(told.offer());
}

TEST_F(ProtocolTest, Claim_WhenTheDaemonGoes_IsUnavailable) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(Read("small", 4)));
  ASSERT_OK_AND_ASSIGN(const std::optional<Batch> batch, loader.Next(absl::Seconds(60)));
  ASSERT_TRUE(batch.has_value());
  const client::BatchData& data = *batch->data();
  ASSERT_OK_AND_ASSIGN(const client::LeaseOwner::Claimed claimed,
                       data.owner()->Claim(data.lease(), "gpu", true, absl::InfiniteFuture()));
  EXPECT_TRUE(claimed.offer);
  data.owner()->Offer(data.lease(), "there");
  StopDaemon();
  data.owner()->Withdraw(data.lease());
  EXPECT_THAT(data.owner()->IsFree(data.lease()), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(data.owner()->Claim(data.lease(), "gpu", true, absl::InfiniteFuture()),
              StatusIs(absl::StatusCode::kUnavailable));
}

// ---- what is refused at open ----

TEST_F(ProtocolTest, Sessions_AtTheLimit_OneMoreIsRefused) {
  ASSERT_NO_FATAL_FAILURE(Start({"--session-limit", "2"}));
  RawSession first(stub()), second(stub()), third(stub());
  for (RawSession* session : {&first, &second}) {
    session->Open("small", 0);
    EXPECT_TRUE(session->Next().has_opened());
  }
  third.Open("small", 0);
  EXPECT_THAT(third.End(), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("session_limit")));
}

TEST_F(ProtocolTest, Open_WithAnotherStoreThanTheNameHas_IsFailedPrecondition) {
  ASSERT_NO_FATAL_FAILURE(Start());
  RawSession session(stub());
  session.Open("small", 0, [](v1::SessionRequest::Open* open) { open->set_store("0123456789abcdef"); });
  EXPECT_THAT(session.End(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("0123456789abcdef")));
}

TEST_F(ProtocolTest, Open_OfABatchThatTheArenaCannotHold_IsResourceExhausted) {
  ASSERT_NO_FATAL_FAILURE(Start());
  IngestSamples("large", MakeSamples(40, 1, 800));  // 5 MB a sample
  RawSession session(stub());
  session.Open("large", 1, [](v1::SessionRequest::Open* open) { open->mutable_plan()->set_batch_size(10); });
  EXPECT_THAT(session.End(), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("arena")));
  ExpectServing();
}

// ---- what is out of range names its field ----

struct BadOpen {
  const char* field;
  std::function<void(v1::SessionRequest::Open*)> change;
};

v1::GafRecipe* Gaf(v1::SessionRequest::Open* open) { return open->mutable_recipe()->mutable_gaf(); }

void SetRange(v1::GafRecipe::Range* range, double low, double high) {
  range->set_low(low);
  range->set_high(high);
}

const std::vector<BadOpen>& BadOpens() {
  using Open = v1::SessionRequest::Open;
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  static const auto* const cases = new std::vector<BadOpen>{
      {"recipe.gaf.fields", [](Open* o) { Gaf(o)->add_fields(static_cast<v1::GafRecipe::Field>(77)); }},
      {"recipe.gaf.fields", [](Open* o) { Gaf(o)->add_fields(v1::GafRecipe::FIELD_UNSPECIFIED); }},
      {"recipe.gaf.fields",
       [](Open* o) {
         Gaf(o)->add_fields(v1::GafRecipe::GASF);
         Gaf(o)->add_fields(v1::GafRecipe::GASF);
       }},
      {"recipe.gaf.image_size", [](Open* o) { Gaf(o)->set_image_size(1); }},
      {"recipe.gaf.image_size", [](Open* o) { Gaf(o)->set_image_size(21); }},
      {"recipe.gaf.image_size", [](Open* o) { Gaf(o)->set_image_size(4097); }},
      {"recipe.gaf.sample_range", [](Open* o) { SetRange(Gaf(o)->mutable_sample_range(), -1.5, 1); }},
      {"recipe.gaf.sample_range", [](Open* o) { SetRange(Gaf(o)->mutable_sample_range(), 0.5, 0.5); }},
      {"recipe.gaf.sample_range", [](Open* o) { SetRange(Gaf(o)->mutable_sample_range(), kNan, 1); }},
      {"recipe.gaf.scale", [](Open* o) { Gaf(o)->set_scale(static_cast<v1::GafRecipe::Scale>(42)); }},
      {"recipe.gaf.fixed_range", [](Open* o) { Gaf(o)->set_scale(v1::GafRecipe::FIXED); }},
      {"recipe.gaf.fixed_range",
       [](Open* o) {
         Gaf(o)->set_scale(v1::GafRecipe::FIXED);
         SetRange(Gaf(o)->mutable_fixed_range(), 3, std::numeric_limits<double>::infinity());
       }},
      {"recipe.gaf.fixed_range", [](Open* o) { SetRange(Gaf(o)->mutable_fixed_range(), 0, 1); }},
      {"recipe.gaf.dtype", [](Open* o) { Gaf(o)->set_dtype(static_cast<v1::DType>(99)); }},
      {"recipe.gaf.dtype", [](Open* o) { Gaf(o)->set_dtype(v1::DTYPE_F64); }},
      {"recipe.gaf.series_scale",
       [](Open* o) { Gaf(o)->set_series_scale(static_cast<v1::GafRecipe::SeriesScale>(9)); }},
      {"recipe.gaf.stats",
       [](Open* o) {
         Gaf(o)->add_fields(v1::GafRecipe::STATS);
         Gaf(o)->set_stats(static_cast<v1::GafRecipe::Stats>(33));
       }},
      {"recipe.gaf.stats", [](Open* o) { Gaf(o)->set_stats(v1::GafRecipe::BASIC); }},
      {"plan.batch_size", [](Open* o) { o->mutable_plan()->set_batch_size(1048577); }},
      {"plan.world", [](Open* o) { o->mutable_plan()->set_world(65537); }},
      {"plan.rank", [](Open* o) { o->mutable_plan()->set_rank(1); }},
      {"plan.tail", [](Open* o) { o->mutable_plan()->set_tail(static_cast<v1::TailPolicy>(17)); }},
      {"plan",
       [](Open* o) {
         o->mutable_plan()->set_tail(v1::DROP);
         o->mutable_plan()->set_batch_size(11);
       }},
      {"position.step", [](Open* o) { o->mutable_position()->set_step(4); }},
      {"credits", [](Open* o) { o->set_credits(65537); }},
  };
  return *cases;
}

TEST_F(ProtocolTest, Open_WithSomethingOutOfRange_IsInvalidArgumentNamingTheField) {
  ASSERT_NO_FATAL_FAILURE(Start());
  for (const BadOpen& bad : BadOpens()) {
    RawSession session(stub());
    session.Open("small", 0, bad.change);
    EXPECT_THAT(session.End(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(bad.field)));
  }
  ExpectServing();
}

TEST_F(ProtocolTest, Ingest_WithSomethingOutOfRange_IsInvalidArgumentNamingIt) {
  ASSERT_NO_FATAL_FAILURE(Start());
  using Options = v1::IngestOptions;
  const std::vector<std::pair<const char*, std::function<void(v1::IngestRequest*)>>> cases = {
      {"format", [](v1::IngestRequest* r) { r->mutable_options()->set_format(static_cast<v1::SourceFormat>(99)); }},
      {"layout", [](v1::IngestRequest* r) { r->mutable_options()->set_layout(static_cast<Options::ArrayLayout>(9)); }},
      {"missing", [](v1::IngestRequest* r) { r->mutable_options()->set_missing(static_cast<Options::Missing>(9)); }},
      {"unequal", [](v1::IngestRequest* r) { r->mutable_options()->set_unequal(static_cast<Options::Unequal>(9)); }},
      {"target", [](v1::IngestRequest* r) { r->mutable_options()->set_target(static_cast<Options::Target>(9)); }},
      {"window", [](v1::IngestRequest* r) { r->mutable_options()->set_window(1); }},
      {"name", [](v1::IngestRequest* r) { r->set_name("../up"); }},
      {"name", [](v1::IngestRequest* r) { r->set_name(""); }},
      {"name", [](v1::IngestRequest* r) { r->set_name(std::string(129, 'a')); }},
      {"absolute", [](v1::IngestRequest* r) { r->set_source(0, "small.ts"); }},
      {"source", [](v1::IngestRequest* r) { r->clear_source(); }},
  };
  for (const auto& [text, change] : cases) {
    v1::IngestRequest request;
    request.set_name("bad");
    request.add_source(DataFile("small.ts"));
    change(&request);
    EXPECT_THAT(IngestStatus(request), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text)));
  }
  ASSERT_OK_AND_ASSIGN(const auto datasets, client().Datasets());
  EXPECT_EQ(datasets.size(), 1u);
}

// ---- fetch ----

TEST_F(ProtocolTest, Fetch_NeedsTheSessionsTokenAndItsLease) {
  ASSERT_NO_FATAL_FAILURE(Start());
  RawSession session(stub());
  session.Open("small", 1);
  const v1::SessionReply::Opened opened = session.Next().opened();
  const v1::SessionReply::Ready ready = session.Next().ready();
  ASSERT_OK_AND_ASSIGN(const std::string bytes, Fetch(opened.session(), opened.fetch_token(), ready.lease()));
  EXPECT_EQ(bytes.size(), ready.batch().extent_size_bytes());
  EXPECT_THAT(Fetch(opened.session(), opened.fetch_token() + 1, ready.lease()), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(Fetch(opened.session() + 1, opened.fetch_token(), ready.lease()), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(Fetch(opened.session(), opened.fetch_token(), ready.lease() + 1), StatusIs(absl::StatusCode::kAborted));
  session.Advance({ready.lease()}, 1);
  EXPECT_EQ(session.Next().ready().batch().step(), 1u);
  EXPECT_THAT(Fetch(opened.session(), opened.fetch_token(), ready.lease()), StatusIs(absl::StatusCode::kAborted));
}

// ---- data sets ----

TEST_F(ProtocolTest, Drop_WhileItIsRead_IsFailedPrecondition) {
  ASSERT_NO_FATAL_FAILURE(Start());
  {
    RawSession session(stub());
    session.Open("small", 1);
    EXPECT_TRUE(session.Next().has_opened());
    EXPECT_THAT(client().Drop("small"), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("small")));
  }
  EXPECT_TRUE(testing::Eventually([&] { return Status().sessions().empty(); }));
  ASSERT_OK_AND_ASSIGN(const v1::DropDatasetReply dropped, client().Drop("small"));
  EXPECT_TRUE(dropped.store_removed());
  EXPECT_THAT(client().Drop("small"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("small")));
  // The extent of a batch in the making goes when its workers have answered.
  EXPECT_TRUE(testing::Eventually([&] { return Status().arena().used_bytes() == 0; }));
}

TEST_F(ProtocolTest, Ingest_OfOtherDataUnderTheSameName_ReadersOfTheOldGoOn) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(Read("small", 4, /*epochs=*/2)));
  const testing::Digests before = ReadEpoch(&loader);
  IngestSamples("small", MakeSamples(12, 1, 20, /*seed=*/5));
  EXPECT_EQ(ReadEpoch(&loader).size(), 3u);
  EXPECT_NE(ReadAll(Read("small", 4)), before);
  loader.Close();
  EXPECT_TRUE(testing::Eventually([&] { return Status().sessions().empty(); }));
  ExpectServing();
}

// ---- health, status, reflection ----

TEST_F(ProtocolTest, Health_KnowsTheDaemonAndItsService) {
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_THAT(client().Health(""), testing::IsOkAndHolds(true));
  EXPECT_THAT(client().Health("stoker.v1.Stoker"), testing::IsOkAndHolds(true));
  EXPECT_THAT(client().Health("stoker.v1.Nothing"), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(ProtocolTest, Status_SaysWhatThereIs) {
  ASSERT_NO_FATAL_FAILURE(Start());
  RawSession session(stub());
  session.Open("small", 2, [](v1::SessionRequest::Open* open) {
    open->set_pid(4711);
    open->set_host("there");
  });
  session.Next();
  session.Next();
  session.Next();
  const v1::StatusReply status = Status();
  EXPECT_EQ(status.state(), v1::StatusReply::SERVING);
  EXPECT_EQ(status.instance_id().size(), 16u);
  EXPECT_EQ(status.pid(), daemon().pid());
  EXPECT_GT(status.uptime_seconds(), 0);
  EXPECT_EQ(status.arena().mode(), "shm");
  EXPECT_EQ(status.arena().used_bytes() + status.arena().free_bytes(), status.arena().capacity_bytes());
  ASSERT_EQ(status.arena().segments_size(), 1);
  EXPECT_EQ(status.arena().segments(0).prefaulted_bytes(), status.arena().segments(0).size_bytes());
  EXPECT_EQ(status.arena().extents().leased(), 2u);
  EXPECT_EQ(status.shm().path(), "/dev/shm");
  EXPECT_GT(status.shm().size_bytes(), status.arena().capacity_bytes());
  ASSERT_EQ(status.streams_size(), 1);
  EXPECT_EQ(status.streams(0).dataset(), "small");
  EXPECT_EQ(status.streams(0).clients(), 1u);
  EXPECT_EQ(status.streams(0).recipe().gaf().image_size(), 20u);
  ASSERT_EQ(status.sessions_size(), 1);
  EXPECT_EQ(status.sessions(0).pid(), 4711);
  EXPECT_EQ(status.sessions(0).host(), "there");
  EXPECT_EQ(status.sessions(0).leases(), 2u);
  EXPECT_EQ(status.sessions(0).position().step(), 2u);
  ASSERT_EQ(status.datasets_size(), 1);
  EXPECT_EQ(status.datasets(0).samples(), 10u);
}

TEST_F(ProtocolTest, WatchStatus_SendsOneAfterTheOther) {
  ASSERT_NO_FATAL_FAILURE(Start());
  std::vector<double> uptimes;
  EXPECT_OK(client().WatchStatus(absl::Milliseconds(50), [&](const v1::StatusReply& status) {
    uptimes.push_back(status.uptime_seconds());
    return uptimes.size() < 4;
  }));
  for (size_t i = 1; i < 4; ++i) EXPECT_GE(uptimes[i] - uptimes[i - 1], 0.04);
  for (const absl::Duration interval : {absl::Milliseconds(1), absl::Hours(2)}) {
    EXPECT_THAT(client().WatchStatus(interval, [](const v1::StatusReply&) { return true; }),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("interval_seconds")));
  }
}

// The request for the list of services is so small that it is written here by hand: field 7, a string.
TEST_F(ProtocolTest, Reflection_ListsTheServices) {
  ASSERT_NO_FATAL_FAILURE(Start());
  grpc::GenericStub generic(channel_);
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  const auto stream =
      generic.PrepareCall(&context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  const auto wait = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  stream->StartCall(nullptr);
  ASSERT_TRUE(wait());
  const grpc::Slice slice(std::string("\x3a\x01*"));
  stream->Write(grpc::ByteBuffer(&slice, 1), nullptr);
  ASSERT_TRUE(wait());
  grpc::ByteBuffer reply;
  stream->Read(&reply, nullptr);
  ASSERT_TRUE(wait());
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(reply.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& piece : slices) bytes.append(reinterpret_cast<const char*>(piece.begin()), piece.size());
  EXPECT_THAT(bytes, HasSubstr("stoker.v1.Stoker"));
  EXPECT_THAT(bytes, HasSubstr("grpc.health.v1.Health"));
  context.TryCancel();
  grpc::Status ignored;
  stream->Finish(&ignored, nullptr);
  wait();
  queue.Shutdown();
}

// ---- the socket ----

TEST_F(ProtocolTest, Sockets_AreForOwnerAndGroupOnly_AndGoWithTheDaemon) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const std::string socket = daemon().address();
  struct stat info;
  for (const std::string& path : {socket, LanePath(socket)}) {
    ASSERT_EQ(::stat(path.c_str(), &info), 0) << path;
    EXPECT_EQ(info.st_mode & 0777, 0660u) << path;
    EXPECT_TRUE(S_ISSOCK(info.st_mode)) << path;
  }
  StopDaemon();
  for (const std::string& path : {socket, LanePath(socket)}) EXPECT_NE(::stat(path.c_str(), &info), 0) << path;
}

TEST_F(ProtocolTest, Rubbish_OnTheSocket_HurtsNobody) {
  ASSERT_NO_FATAL_FAILURE(Start());
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  daemon().address().copy(address.sun_path, sizeof(address.sun_path) - 1);
  for (const std::string& rubbish : {std::string("GET / HTTP/1.1\r\n\r\n"), std::string(1 << 16, '\xff'),
                                     std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x7f\xff\xff\xff\xff")}) {
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    (void)::send(fd.get(), rubbish.data(), rubbish.size(), MSG_NOSIGNAL);  // it may hang up before all is sent
  }
  ExpectServing();
}

}  // namespace
}  // namespace stoker
