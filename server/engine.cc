// SPDX-License-Identifier: Apache-2.0
#include "server/engine.h"

#include <cstring>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/log.h"
#include "shared/segment/header.h"

namespace stoker {
namespace {

constexpr absl::Duration kSegmentCheck = absl::Milliseconds(500);

arena::Extent ToArena(const schedule::ExtentRef& extent) { return {extent.segment, extent.offset, extent.size}; }

workers::PoolOptions MakePoolOptions(const EngineOptions& options) {
  return {.program = options.worker_program,
          .count = options.workers,
          .role = "batches",
          .nice = 0,
          .deadline = options.part_deadline,
          .warn = [](absl::string_view message) { log::Warning(message); }};
}

}  // namespace

Engine::Engine(const EngineOptions& options, loop::EventLoop* loop, arena::Arena* arena)
    : options_(options),
      loop_(loop),
      arena_(arena),
      scheduler_({.lease_limit = options.lease_limit,
                  .session_limit = options.session_limit,
                  .parallel_parts = static_cast<uint32_t>(std::max(options.workers, 1))},
                 this, this),
      pool_(MakePoolOptions(options), loop, this) {}

Engine::~Engine() {
  loop_->Cancel(poke_);
  loop_->Cancel(segment_check_);
}

void Engine::Start() {
  for (const auto& info : arena_->segments()) {
    pool_.MapSegment(info.index, info.segment->fd(), info.segment->size_bytes());
  }
  pool_.Start();
  WatchSegments();
}

// ---- sessions ----

void Engine::OpenSession(std::shared_ptr<rpc::SessionPeer> peer, const Request& request) {
  const v1::SessionRequest::Open& open = request.open;
  const batch::BatchMaker& maker = request.batches->maker();
  const absl::StatusOr<schedule::SessionId> id =
      scheduler_.OpenSession({.key = request.key,
                              .dataset = open.dataset(),
                              .store = maker.manifest().id(),
                              .recipe = maker.recipe(),
                              .plan = request.batches->plan().proto(),
                              .source = request.batches},
                             {.position = {open.position().epoch(), open.position().step()},
                              .end_epoch = open.end_epoch(),
                              .pid = open.pid(),
                              .host = open.host()},
                             absl::Now());
  if (!id.ok()) {
    peer->End(id.status());
    return;
  }
  const schedule::StreamId stream = scheduler_.StreamOf(*id);
  if (Stream& record = streams_[stream]; record.batches == nullptr) {
    record.key = request.key;
    record.batches = request.batches;
    record.open.set_stream(stream);
    record.open.set_store_dir(request.store_dir);
    *record.open.mutable_recipe() = maker.recipe();
  }
  const uint64_t token = absl::Uniform<uint64_t>(absl::BitGen());
  v1::SessionReply reply;
  FillOpened(*id, request, token, reply.mutable_opened());
  peer->Send(std::move(reply));
  log::Info("session opened", {{"session", *id}, {"dataset", open.dataset()}, {"stream", stream}, {"pid", open.pid()}});
  ids_[peer.get()] = *id;
  clients_[*id] = {std::move(peer), token};
  v1::SessionRequest::Advance first;
  first.set_credits(open.credits());
  AdvanceSession(clients_.at(*id).peer.get(), first);
}

std::shared_ptr<const batch::PlannedBatches> Engine::FindBatches(const std::string& key) const {
  for (const auto& [id, stream] : streams_) {
    if (stream.key == key) return stream.batches;
  }
  return nullptr;
}

std::shared_ptr<const batch::PlannedBatches> Engine::BatchesOf(rpc::SessionPeer* peer) const {
  const auto it = ids_.find(peer);
  return it == ids_.end() ? nullptr : streams_.at(scheduler_.StreamOf(it->second)).batches;
}

void Engine::FillOpened(schedule::SessionId id, const Request& request, uint64_t token,
                        v1::SessionReply::Opened* opened) const {
  const batch::PlannedBatches& batches = *request.batches;
  const v1::StoreManifest& manifest = batches.maker().manifest();
  opened->set_session(id);
  opened->set_stream(scheduler_.StreamOf(id));
  opened->set_instance_id(options_.instance_id);
  opened->set_store(manifest.id());
  opened->set_samples(manifest.samples());
  opened->set_steps_per_epoch(batches.Steps(request.open.position().epoch()));
  opened->set_lease_limit(options_.lease_limit);
  opened->set_batch_bytes(batches.full_batch_bytes());
  const plan::Costs& largest = batches.largest();
  opened->mutable_largest()->set_samples(largest[plan::kGraphs]);
  opened->mutable_largest()->set_nodes(largest[plan::kNodes]);
  opened->mutable_largest()->set_edges(largest[plan::kEdges]);
  opened->mutable_largest()->set_triplets(largest[plan::kTriplets]);
  opened->mutable_largest()->set_extent_bytes(largest[plan::kBytes]);
  opened->set_arena_batches(arena_->RoomFor(batches.full_batch_bytes()));
  opened->set_oversize_samples(batches.oversize_samples());
  opened->set_recipe_digest(request.recipe_digest);
  opened->set_plan_digest(request.plan_digest);
  opened->set_kind(manifest.kind());
  opened->set_fetch_token(token);
  opened->set_lane(options_.lanes);
  *opened->mutable_classes() = manifest.classes();
  const auto tensors = batches.Schema();
  if (!tensors.ok()) return;  // PlannedBatches::Create has laid them out already
  for (const tensor::TensorSpec& tensor : *tensors) {
    v1::SessionReply::TensorSchema* const schema = opened->add_schema();
    schema->set_name(tensor.name);
    schema->set_dtype(tensor.dtype);
    for (const int64_t dimension : tensor.shape) schema->add_shape(dimension);
  }
}

void Engine::HandleRequest(rpc::SessionPeer* peer, const v1::SessionRequest& request) {
  if (request.has_advance()) return AdvanceSession(peer, request.advance());
  if (request.has_seek()) return SeekSession(peer, request.seek());
  ShareCopy(peer, request);
}

std::shared_ptr<rpc::SessionPeer> Engine::Find(const v1::LaneHello& hello) const {
  const auto it = clients_.find(hello.session());
  return it != clients_.end() && it->second.fetch_token == hello.token() ? it->second.peer : nullptr;
}

void Engine::AdvanceSession(rpc::SessionPeer* peer, const v1::SessionRequest::Advance& request) {
  const auto it = ids_.find(peer);
  if (it == ids_.end()) return;  // ended while this was on its way
  const schedule::SessionId id = it->second;
  if (request.announce() && arena_->mappable()) scheduler_.AnnounceTo(id);
  EndIfWrong(id, scheduler_.Advance(id, request.release(), request.credits(), absl::Now()));
}

void Engine::ShareCopy(rpc::SessionPeer* peer, const v1::SessionRequest& request) {
  const auto it = ids_.find(peer);
  if (it == ids_.end()) return;
  const schedule::SessionId id = it->second;
  if (request.has_claim()) {
    EndIfWrong(id, scheduler_.Claim(id, request.claim()));
  } else if (request.has_offer()) {
    EndIfWrong(id, scheduler_.Offer(id, request.offer()));
  } else {
    EndIfWrong(id, scheduler_.Withdraw(id, request.withdraw().claim()));
  }
}

// The client broke the protocol.
void Engine::EndIfWrong(schedule::SessionId id, const absl::Status& status) {
  if (status.ok()) return;
  scheduler_.CloseSession(id);
  End(id, status);
}

void Engine::SeekSession(rpc::SessionPeer* peer, const v1::SessionRequest::Seek& request) {
  const auto it = ids_.find(peer);
  if (it == ids_.end()) return;  // ended while this was on its way
  const absl::StatusOr<uint64_t> steps =
      scheduler_.Seek(it->second, {request.position().epoch(), request.position().step()}, request.release());
  if (!steps.ok()) return EndIfWrong(it->second, steps.status());
  v1::SessionReply reply;
  reply.mutable_sought()->set_steps_per_epoch(*steps);
  peer->Send(std::move(reply));
  v1::SessionRequest::Advance first;
  first.set_credits(request.credits());
  AdvanceSession(peer, first);
}

void Engine::CloseSession(rpc::SessionPeer* peer) {
  const auto it = ids_.find(peer);
  if (it == ids_.end()) return;
  const schedule::SessionId id = it->second;
  scheduler_.CloseSession(id);
  log::Info("session closed", {{"session", id}});
  ids_.erase(it);
  clients_.erase(id);
}

void Engine::Send(schedule::SessionId session, v1::SessionReply reply) {
  clients_.at(session).peer->Send(std::move(reply));
}

void Engine::End(schedule::SessionId session, const absl::Status& reason) {
  log::Info("session ended", {{"session", session}, {"reason", reason.ToString()}});
  const auto node = clients_.extract(session);
  if (node.empty()) return;
  ids_.erase(node.mapped().peer.get());
  node.mapped().peer->End(reason);
}

absl::StatusOr<Engine::Pinned> Engine::Pin(const v1::FetchRequest& request) {
  const auto it = clients_.find(request.session());
  if (it == clients_.end() || it->second.fetch_token != request.token()) {
    return absl::NotFoundError(absl::StrCat("fetch: there is no session ", request.session(), " with this token"));
  }
  absl::StatusOr<schedule::Scheduler::Pinned> pinned = scheduler_.Pin(request.session(), request.lease(), absl::Now());
  if (!pinned.ok()) return pinned.status();
  return Pinned{pinned->pin, {arena_->data(ToArena(pinned->extent)), pinned->extent.size}};
}

// ---- extents ----

std::optional<schedule::ExtentRef> Engine::Allocate(uint64_t size, uint64_t slot) {
  const std::optional<arena::Extent> extent = arena_->Allocate(size, slot);
  if (!extent) return std::nullopt;
  return schedule::ExtentRef{extent->segment, extent->offset, extent->size};
}

bool Engine::reachable(const schedule::ExtentRef& extent) const { return !arena_->retired(ToArena(extent)); }

void Engine::Free(const schedule::ExtentRef& extent) {
  arena_->Free(ToArena(extent));
  UnmapRetired();
}

void Engine::Describe(const schedule::ExtentRef& extent, v1::BatchDescriptor* batch) const {
  arena_->Describe(ToArena(extent), batch);
}

void Engine::BeginFilling(const schedule::ExtentRef& extent, const schedule::Position& at) {
  uint8_t* const data = arena_->data(ToArena(extent));
  // First of all the sequence goes: whoever still has the batch before mapped can tell from now on.
  segment::WriteSequence(data, 0);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  segment::ExtentHeader header = {segment::kExtentMagic, 0, extent.size, at.epoch, at.step, {}};
  std::memcpy(data, &header, sizeof(header));
}

void Engine::Seal(const schedule::ExtentRef& extent, uint64_t sequence) {
  segment::SealExtent(arena_->data(ToArena(extent)), sequence);
}

void Engine::UnmapRetired() {
  for (const uint32_t segment : arena_->TakeRetired()) pool_.UnmapSegment(segment);
}

void Engine::WatchSegments() {
  const absl::StatusOr<std::vector<uint32_t>> added = arena_->ReplaceUnlinked();
  if (!added.ok()) log::Error("a segment was removed and cannot be replaced", {{"reason", added.status().message()}});
  if (added.ok() && !added->empty()) {
    log::Warning("segments were removed by somebody and have been replaced", {{"count", added->size()}});
    for (const auto& info : arena_->segments()) {
      if (std::find(added->begin(), added->end(), info.index) == added->end()) continue;
      pool_.MapSegment(info.index, info.segment->fd(), info.segment->size_bytes());
    }
  }
  scheduler_.DropUnreachable();
  UnmapRetired();
  segment_check_ = loop_->After(kSegmentCheck, [this] { WatchSegments(); });
}

// ---- workers ----

// Within a call of the scheduler, which the pool would call back into; so a little later.
void Engine::PartsReady() {
  if (poke_ != 0) return;
  poke_ = loop_->After(absl::ZeroDuration(), [this] {
    poke_ = 0;
    pool_.Poke();
  });
}

void Engine::StreamClosed(schedule::StreamId stream) {
  streams_.erase(stream);
  pool_.CloseStream(stream);
}

std::optional<workers::Task> Engine::NextTask() {
  const std::optional<schedule::Part> part = scheduler_.NextPart();
  if (!part) return std::nullopt;
  workers::Task task;
  task.id = part->id;
  task.stream = part->stream;
  v1::ToWorker::MakePart* const make = task.message.mutable_make_part();
  make->set_part(part->id);
  make->set_stream(part->stream);
  streams_.at(part->stream).batches->DescribePart(*part, make);
  make->set_segment(part->extent.segment);
  make->set_extent_offset_bytes(part->extent.offset);
  make->set_extent_size_bytes(part->extent.size);
  return task;
}

v1::ToWorker::OpenStream Engine::OpenStream(uint64_t stream) { return streams_.at(stream).open; }

void Engine::Done(uint64_t task, const absl::Status& status) { scheduler_.PartDone(task, status, absl::Now()); }

void Engine::Lost(uint64_t task, absl::string_view how) { scheduler_.PartLost(task, how, absl::Now()); }

// ---- status ----

void Engine::FillStatus(v1::StatusReply* status) const {
  v1::StatusReply::Arena* const arena = status->mutable_arena();
  arena->set_capacity_bytes(arena_->capacity_bytes());
  arena->set_used_bytes(arena_->used_bytes());
  arena->set_free_bytes(arena_->capacity_bytes() - std::min(arena_->capacity_bytes(), arena_->used_bytes()));
  arena->set_mode(arena_->mappable() ? "shm" : "inline");
  for (const auto& info : arena_->segments()) {
    v1::StatusReply::Segment* const segment = arena->add_segments();
    segment->set_name(info.segment->name());
    segment->set_generation(info.segment->generation());
    segment->set_size_bytes(info.segment->size_bytes());
    segment->set_used_bytes(info.used_bytes);
    segment->set_prefaulted_bytes(info.prefaulted_bytes);
  }
  scheduler_.FillStatus(absl::Now(), status);
  for (v1::StatusReply::Session& session : *status->mutable_sessions()) {
    session.set_lane(clients_.at(session.id()).peer->attached());
  }
  pool_.FillStatus(status);
}

}  // namespace stoker
