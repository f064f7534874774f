// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/client/fake_daemon.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "shared/segment/header.h"
#include "tests/support/instance_id.h"

namespace stoker::testing {
namespace {

constexpr uint64_t kFirstExtent = segment::kSegmentHeaderBytes;
constexpr uint64_t kToken = 0x5eed;

tensor::Layout MakeLayout() {
  return *tensor::Layout::Create({{"x", v1::DTYPE_F32, {kRows, kColumns}},
                                  {"h", v1::DTYPE_F16, {kRows}},
                                  {"index", v1::DTYPE_I64, {kRows}},
                                  {"gasf", v1::DTYPE_U8, {kRows, 1, 2, 2}}});
}

}  // namespace

FakeDaemon::FakeDaemon(FakeDaemonOptions options) : options_(std::move(options)), layout_(MakeLayout()) {
  instance_ = RandomInstanceId();
  segment::SegmentOptions segment;
  segment.instance_id = instance_;
  segment.directory = options_.shared_memory ? segment::kDefaultDirectory : "";
  segment.size_bytes = kFirstExtent + options_.slots * layout_.extent_bytes();
  segment_ = std::make_unique<segment::Segment>(*segment::Segment::Create(segment));
  for (uint64_t slot = 0; slot < options_.slots; ++slot) free_slots_.insert(slot);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + options_.socket, grpc::InsecureServerCredentials());
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
}

FakeDaemon::~FakeDaemon() {
  SetDeaf(false);
  BreakStreams();
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  server_->Wait();
}

uint8_t* FakeDaemon::Slot(uint64_t slot) const {
  return segment_->data() + kFirstExtent + slot * layout_.extent_bytes();
}

void FakeDaemon::FailStep(uint64_t step, grpc::StatusCode code, const std::string& message) {
  absl::MutexLock lock(&mu_);
  failures_[step] = {code, message};
}

void FakeDaemon::SetMaking(bool making) {
  absl::MutexLock lock(&mu_);
  making_ = making;
}

void FakeDaemon::Seal(bool wrongly) {
  absl::MutexLock lock(&mu_);
  for (const auto& [slot, batch] : std::exchange(announced_, {})) {
    segment::SealExtent(Slot(slot), batch.first + (wrongly ? 1000 : 0));
  }
}

void FakeDaemon::FailAnnounced(uint64_t step, grpc::StatusCode code, const std::string& message) {
  absl::MutexLock lock(&mu_);
  failures_[step] = {code, message};
  for (Client* client : clients_) {
    for (const auto& [lease, slot] : client->leases) {
      const auto batch = announced_.find(slot);
      if (batch == announced_.end() || batch->second.second != step) continue;
      Fail(*client, code, message);
      break;
    }
  }
}

uint64_t FakeDaemon::announced() const {
  absl::MutexLock lock(&mu_);
  return announced_.size();
}

void FakeDaemon::TellRoomIsWanted() {
  absl::MutexLock lock(&mu_);
  v1::SessionReply reply;
  reply.mutable_room_wanted();
  for (Client* client : clients_) client->stream->Write(reply);
}

void FakeDaemon::SetPaused(bool paused) {
  absl::MutexLock lock(&mu_);
  paused_ = paused;
  for (Client* client : clients_) Serve(*client);
}

void FakeDaemon::SetDeaf(bool deaf) {
  absl::MutexLock lock(&mu_);
  deaf_ = deaf;
}

void FakeDaemon::FaultSeek(SeekFault fault) {
  absl::MutexLock lock(&mu_);
  seek_fault_ = fault;
}

void FakeDaemon::SetFetchStalled(bool stalled) {
  absl::MutexLock lock(&mu_);
  fetch_stalled_ = stalled;
}

void FakeDaemon::AnswerFetchAsAnother() {
  absl::MutexLock lock(&mu_);
  fetch_as_another_ = true;
}

void FakeDaemon::BreakStreams() {
  absl::MutexLock lock(&mu_);
  for (Client* client : clients_) client->context->TryCancel();
}

void FakeDaemon::SetState(v1::StatusReply::State state) {
  absl::MutexLock lock(&mu_);
  state_ = state;
}

uint64_t FakeDaemon::leases() const {
  absl::MutexLock lock(&mu_);
  return options_.slots - free_slots_.size();
}

std::vector<std::string> FakeDaemon::sent() const {
  absl::MutexLock lock(&mu_);
  return sent_;
}

uint64_t FakeDaemon::sessions_opened() const {
  absl::MutexLock lock(&mu_);
  return sessions_opened_;
}

uint64_t FakeDaemon::advances() const {
  absl::MutexLock lock(&mu_);
  return advances_;
}

uint64_t FakeDaemon::seeks() const {
  absl::MutexLock lock(&mu_);
  return seeks_;
}

uint64_t FakeDaemon::fetches() const {
  absl::MutexLock lock(&mu_);
  return fetches_;
}

uint64_t FakeDaemon::fetches_cancelled() const {
  absl::MutexLock lock(&mu_);
  return fetches_cancelled_;
}

v1::SessionRequest::Open FakeDaemon::last_open() const {
  absl::MutexLock lock(&mu_);
  return last_open_;
}

bool FakeDaemon::AwaitLeases(uint64_t count) const {
  absl::MutexLock lock(&mu_);
  const auto reached = [&]()
                           ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return options_.slots - free_slots_.size() == count; };
  return mu_.AwaitWithTimeout(absl::Condition(&reached), absl::Seconds(10));
}

grpc::Status FakeDaemon::GetStatus(grpc::ServerContext*, const v1::StatusRequest*, v1::StatusReply* reply) {
  absl::MutexLock lock(&mu_);
  reply->set_state(state_);
  reply->set_instance_id(instance_);
  return grpc::Status::OK;
}

grpc::Status FakeDaemon::WatchStatus(grpc::ServerContext* context, const v1::StatusRequest* request,
                                     grpc::ServerWriter<v1::StatusReply>* writer) {
  v1::StatusReply reply;
  GetStatus(context, request, &reply);
  while (writer->Write(reply)) absl::SleepFor(absl::Seconds(request->interval_seconds()));
  return grpc::Status::OK;
}

grpc::Status FakeDaemon::Ingest(grpc::ServerContext* context, const v1::IngestRequest* request,
                                grpc::ServerWriter<v1::IngestEvent>* writer) {
  v1::IngestEvent event;
  if (request->name() == "endless") {
    event.mutable_progress()->set_phase("reading");
    while (!context->IsCancelled() && writer->Write(event)) absl::SleepFor(absl::Milliseconds(5));
    return grpc::Status::CANCELLED;
  }
  if (request->name() == "bad") return {grpc::StatusCode::INVALID_ARGUMENT, "walks.csv:7: channel x: not a number"};
  event.mutable_progress()->set_phase("reading");
  event.mutable_progress()->set_bytes_total(100);
  writer->Write(event);
  event.mutable_done()->mutable_dataset()->set_name(request->name());
  event.mutable_done()->mutable_dataset()->set_samples(20);
  *event.mutable_done()->mutable_dataset()->mutable_options() = request->options();
  if (request->options().has_crystal()) {
    v1::StoreManifest* manifest = event.mutable_done()->mutable_dataset()->mutable_manifest();
    manifest->set_kind(v1::CRYSTALS);
    manifest->mutable_crystals()->set_edges(1234);
    manifest->mutable_crystals()->mutable_edges_each()->set_median(61);
    manifest->mutable_crystals()->add_targets("gap");
    manifest->add_skipped()->set_reason("singular lattice");
  }
  writer->Write(event);
  return grpc::Status::OK;
}

grpc::Status FakeDaemon::ListDatasets(grpc::ServerContext*, const v1::ListDatasetsRequest* request,
                                      v1::ListDatasetsReply* reply) {
  if (!request->name().empty() && request->name() != "numbers") {
    return {grpc::StatusCode::NOT_FOUND, absl::StrCat("data set \"", request->name(), "\": there is none")};
  }
  reply->add_datasets()->set_name("numbers");
  return grpc::Status::OK;
}

grpc::Status FakeDaemon::DropDataset(grpc::ServerContext*, const v1::DropDatasetRequest* request,
                                     v1::DropDatasetReply* reply) {
  absl::MutexLock lock(&mu_);
  if (!clients_.empty()) return {grpc::StatusCode::FAILED_PRECONDITION, "data set \"numbers\" is in use"};
  reply->set_store_removed(true);
  return grpc::Status::OK;
}

grpc::Status FakeDaemon::Session(grpc::ServerContext* context,
                                 grpc::ServerReaderWriter<v1::SessionReply, v1::SessionRequest>* stream) {
  Client client{context, stream, {}, 0, 0, false, {}, {}, false};
  v1::SessionRequest request;
  if (!stream->Read(&request) || !request.has_open()) return {grpc::StatusCode::INVALID_ARGUMENT, "no open"};
  {
    absl::MutexLock lock(&mu_);
    Listen();
    client.open = request.open();
    last_open_ = request.open();
    if (Open(client)) {
      clients_.insert(&client);
      Serve(client);
    }
  }
  while (stream->Read(&request)) {
    absl::MutexLock lock(&mu_);
    Listen();
    Handle(client, request);
    if (client.ended) break;
  }
  absl::MutexLock lock(&mu_);
  clients_.erase(&client);
  for (const auto& [lease, slot] : client.leases) free_slots_.insert(slot);
  return grpc::Status::OK;
}

void FakeDaemon::Listen() {
  const auto listens = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !deaf_; };
  mu_.Await(absl::Condition(&listens));
}

void FakeDaemon::Handle(Client& client, const v1::SessionRequest& request) {
  ++advances_;
  if (request.has_seek()) {
    Seek(client, request.seek());
  } else {
    TakeBack(client, request.advance().release());
    client.credits += request.advance().credits();
    client.announce |= request.advance().announce();
  }
  Serve(client);
}

void FakeDaemon::TakeBack(Client& client, const google::protobuf::RepeatedField<uint64_t>& leases) {
  for (const uint64_t lease : leases) {
    free_slots_.insert(client.leases.at(lease));
    client.leases.erase(lease);
  }
}

void FakeDaemon::Seek(Client& client, const v1::SessionRequest::Seek& seek) {
  ++seeks_;
  const SeekFault fault = std::exchange(seek_fault_, SeekFault::kNone);
  if (fault == SeekFault::kFails) return Fail(client, grpc::StatusCode::DATA_LOSS, "a batch of the place before");
  if (fault == SeekFault::kBreaks) {
    client.context->TryCancel();
    client.ended = true;
    return;
  }
  client.credits += options_.stale;
  Serve(client);
  if (seek.position().step() > Steps(seek.position().epoch())) {
    return Fail(client, grpc::StatusCode::INVALID_ARGUMENT, "position: no such step");
  }
  TakeBack(client, seek.release());
  client.next = seek.position();
  client.credits = seek.credits();
  v1::SessionReply reply;
  reply.mutable_sought()->set_steps_per_epoch(Steps(client.next.epoch()));
  client.stream->Write(reply);
}

bool FakeDaemon::Open(Client& client) {
  if (state_ != v1::StatusReply::SERVING) {
    Fail(client, grpc::StatusCode::FAILED_PRECONDITION, "the daemon is starting");
    return false;
  }
  if (client.open.dataset() != "numbers") {
    Fail(client, grpc::StatusCode::NOT_FOUND, absl::StrCat("data set \"", client.open.dataset(), "\": there is none"));
    return false;
  }
  if (client.open.position().step() > Steps(client.open.position().epoch())) {
    Fail(client, grpc::StatusCode::INVALID_ARGUMENT, "position: no such step");
    return false;
  }
  ++sessions_opened_;
  client.id = next_id_++;
  client.credits = client.open.credits();
  client.next = client.open.position();
  v1::SessionReply reply;
  v1::SessionReply::Opened* opened = reply.mutable_opened();
  opened->set_session(client.id);
  opened->set_instance_id(instance_);
  opened->set_store(options_.store);
  opened->set_samples(options_.steps * kRows);
  opened->set_steps_per_epoch(Steps(client.next.epoch()));
  opened->set_lease_limit(options_.lease_limit);
  opened->set_arena_batches(options_.slots);
  opened->set_batch_bytes(layout_.extent_bytes());
  opened->mutable_largest()->set_extent_bytes(layout_.extent_bytes());
  opened->set_recipe_digest("00112233aabbccdd");
  opened->set_plan_digest(absl::StrCat("plan-", client.open.plan().batch_size(), "-", client.open.plan().world()));
  opened->add_classes()->set_label("even");
  opened->add_classes()->set_label("odd");
  opened->set_fetch_token(kToken);
  client.stream->Write(reply);
  return true;
}

void FakeDaemon::Fail(Client& client, grpc::StatusCode code, const std::string& message) {
  v1::SessionReply reply;
  reply.mutable_failed()->set_code(static_cast<int>(code));
  reply.mutable_failed()->set_message(message);
  client.stream->Write(reply);
  client.ended = true;
  for (const auto& [lease, slot] : client.leases) free_slots_.insert(slot);
  client.leases.clear();
}

void FakeDaemon::Serve(Client& client) {
  while (!paused_ && !client.ended) {
    if (client.next.step() >= Steps(client.next.epoch())) {
      v1::SessionReply reply;
      reply.mutable_end_of_epoch()->set_epoch(client.next.epoch());
      reply.mutable_end_of_epoch()->set_next_steps(Steps(client.next.epoch() + 1));
      client.stream->Write(reply);
      client.next.set_epoch(client.next.epoch() + 1);
      client.next.set_step(0);
    }
    if (client.open.end_epoch() > 0 && client.next.epoch() >= client.open.end_epoch()) return;
    if (client.credits == 0 || free_slots_.empty() || client.leases.size() >= options_.lease_limit) return;
    if (const auto failure = failures_.find(client.next.step()); failure != failures_.end()) {
      Fail(client, failure->second.first, failure->second.second);
      return;
    }
    const uint64_t slot = *free_slots_.begin();
    free_slots_.erase(slot);
    SendBatch(client, slot);
  }
}

void FakeDaemon::SendBatch(Client& client, uint64_t slot) {
  uint8_t* extent = Slot(slot);
  segment::WriteSequence(extent, 0);
  auto* header = reinterpret_cast<segment::ExtentHeader*>(extent);
  header->magic = segment::kExtentMagic;
  header->size_bytes = layout_.extent_bytes();
  for (int64_t i = 0; i < kRows * kColumns; ++i) {
    const float value = ExpectedValue(client.next.epoch(), client.next.step(), i);
    std::memcpy(extent + layout_.offset_bytes(0) + i * sizeof(float), &value, sizeof(value));
  }
  for (int64_t i = 0; i < kRows; ++i) {
    const uint16_t half = 0x3c00;  // 1.0
    std::memcpy(extent + layout_.offset_bytes(1) + i * sizeof(half), &half, sizeof(half));
    const int64_t index = static_cast<int64_t>(client.next.step()) * kRows + i;
    std::memcpy(extent + layout_.offset_bytes(2) + i * sizeof(index), &index, sizeof(index));
  }
  std::memset(extent + layout_.offset_bytes(3), 10, kRows * 4);
  ++sequence_;
  announced_.erase(slot);
  if (making_ && client.announce) {
    announced_[slot] = {sequence_, client.next.step()};
  } else {
    segment::SealExtent(extent, sequence_);
  }
  v1::SessionReply reply;
  v1::SessionReply::Ready* ready = reply.mutable_ready();
  ready->set_lease(next_id_++);
  ready->set_may_keep(options_.may_keep);
  client.leases[ready->lease()] = slot;
  v1::BatchDescriptor* batch = ready->mutable_batch();
  segment_->Describe(batch->mutable_segment());
  batch->set_extent_offset_bytes(kFirstExtent + slot * layout_.extent_bytes());
  batch->set_sequence(sequence_);
  batch->set_epoch(client.next.epoch());
  batch->set_step(client.next.step());
  batch->set_samples(kRows);
  layout_.Describe(batch);
  sent_.push_back(absl::StrCat(client.next.epoch(), ":", client.next.step()));
  client.stream->Write(reply);
  --client.credits;
  client.next.set_step(client.next.step() + 1);
}

grpc::Status FakeDaemon::Fetch(grpc::ServerContext* context, const v1::FetchRequest* request,
                               grpc::ServerWriter<v1::FetchChunk>* writer) {
  std::string bytes;
  {
    absl::MutexLock lock(&mu_);
    ++fetches_;
    while (fetch_stalled_ && !context->IsCancelled()) {
      const auto goes_on = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !fetch_stalled_; };
      mu_.AwaitWithTimeout(absl::Condition(&goes_on), absl::Milliseconds(1));
    }
    if (context->IsCancelled()) ++fetches_cancelled_;
    if (request->token() != kToken || std::exchange(fetch_as_another_, false)) {
      return {grpc::StatusCode::NOT_FOUND, "fetch: there is no session with this token"};
    }
    for (const Client* client : clients_) {
      const auto lease = client->leases.find(request->lease());
      if (client->id != request->session() || lease == client->leases.end()) continue;
      bytes.assign(reinterpret_cast<const char*>(Slot(lease->second)), layout_.extent_bytes());
    }
  }
  if (bytes.empty()) return {grpc::StatusCode::ABORTED, "the lease is no longer held"};
  constexpr size_t kChunk = 1000;
  for (size_t offset = 0; offset < bytes.size(); offset += kChunk) {
    v1::FetchChunk chunk;
    chunk.set_offset_bytes(offset);
    chunk.set_data(bytes.substr(offset, kChunk));
    writer->Write(chunk);
  }
  return grpc::Status::OK;
}

}  // namespace stoker::testing
