// SPDX-License-Identifier: Apache-2.0
// Streams, sessions, wants and leases. How batches get made and evicted is in making.cc.
#include "server/schedule/scheduler.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"

namespace stoker::schedule {
namespace {

Position After(const Stream& stream, Position position, uint64_t count) {
  position.step += count;
  for (uint64_t steps = stream.Steps(position.epoch); position.step >= steps; steps = stream.Steps(position.epoch)) {
    position.step -= steps;
    ++position.epoch;
  }
  return position;
}

// The steps of its epoch.
absl::StatusOr<uint64_t> CheckPosition(const BatchSource& source, const Position& position) {
  const uint64_t steps = source.Steps(position.epoch);
  if (position.step <= steps) return steps;
  return absl::InvalidArgumentError(
      absl::StrCat("position.step: ", position.step, " is past the ", steps, " steps of an epoch"));
}

// A position is normal when its step is a step; at the end of an epoch an EndOfEpoch is due first.
bool AtEndOfEpoch(const Stream& stream, const Position& position) {
  return position.step == stream.Steps(position.epoch);
}

template <typename T>
void EraseOne(std::vector<T*>* list, T* item) {
  const auto it = std::find(list->begin(), list->end(), item);
  if (it == list->end()) return;
  *it = list->back();
  list->pop_back();
}

// How many slots an extent of `size` bytes touches at most, itself at a multiple of its size.
uint64_t MostSlots(uint64_t slot, uint64_t size) {
  const uint64_t farthest = slot - std::gcd(slot, size);  // into a slot that it begins
  return (farthest + size + slot - 1) / slot;
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options, ExtentPool* pool, Actions* actions)
    : options_(options), pool_(pool), actions_(actions), copies_(actions) {}
Scheduler::~Scheduler() = default;

// ---- sessions ----

absl::StatusOr<SessionId> Scheduler::OpenSession(const StreamSpec& stream_spec, const SessionSpec& spec,
                                                 absl::Time now) {
  if (!draining_.ok()) return draining_;
  if (sessions_.size() >= options_.session_limit) {
    return absl::ResourceExhaustedError(
        absl::StrCat("open: ", sessions_.size(), " sessions are open, the limit; raise session_limit or close some"));
  }
  const uint64_t bytes = stream_spec.source->full_batch_bytes();
  if (pool_->RoomFor(bytes) < 2) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "open: a batch takes ", FormatSize(bytes), ", and two must fit: the arena holds ",
        FormatSize(pool_->capacity_bytes()), ", in one piece at most ", FormatSize(pool_->largest_extent()),
        "; use smaller batches, or a larger arena (--arena-bytes, segment_bytes)"));
  }
  STOKER_ASSIGN_OR_RETURN(const uint64_t steps, CheckPosition(*stream_spec.source, spec.position));
  Stream* stream = FindOrCreateStream(stream_spec);
  stream->forgotten = false;
  stream->last_steps = steps;
  auto session = std::make_unique<Session>();
  session->id = next_id_++;
  session->stream = stream;
  session->spec = spec;
  session->next = spec.position;
  session->opened = now;
  stream->sessions.push_back(session.get());
  const SessionId id = session->id;
  sessions_[id] = std::move(session);
  UpdateMayKeep();
  return id;
}

// With k leases kept by the user of each session, wherever they are, each session has a slot for a batch more.
void Scheduler::UpdateMayKeep() {
  absl::flat_hash_map<uint64_t, uint64_t> sessions;  // by the size of their slots
  for (const auto& [id, session] : sessions_) ++sessions[session->stream->slot_bytes()];
  uint64_t bytes = 0;
  for (const auto& [size, count] : sessions) bytes += size * count;
  constexpr size_t kCounted = 64;  // sizes; of more slots are estimated, at least as many
  const bool counted = sessions.size() <= kCounted;
  may_keep_ = std::numeric_limits<uint64_t>::max();
  for (const auto& [slot, waiting] : sessions) {
    uint64_t taken = counted ? 0 : bytes / slot + 2 * sessions_.size();  // slots, by one batch of each session
    if (counted) {
      for (const auto& [size, count] : sessions) taken += count * MostSlots(slot, size);
    }
    may_keep_ = std::min(may_keep_, (std::max<uint64_t>(pool_->RoomFor(slot), 1) - 1) / taken);
  }
}

Stream* Scheduler::FindOrCreateStream(const StreamSpec& spec) {
  if (const auto it = streams_by_key_.find(spec.key); it != streams_by_key_.end()) return it->second;
  auto stream = std::make_unique<Stream>();
  stream->id = next_id_++;
  stream->spec = spec;
  Stream* const result = stream.get();
  streams_by_key_[spec.key] = result;
  streams_[result->id] = std::move(stream);
  return result;
}

void Scheduler::CloseStreamIfUnused(Stream* stream) {
  if (!stream->sessions.empty() || !stream->batches.empty()) return;
  const StreamId id = stream->id;
  streams_by_key_.erase(stream->spec.key);
  streams_.erase(id);
  actions_->StreamClosed(id);
}

StreamId Scheduler::StreamOf(SessionId session) const {
  const auto it = sessions_.find(session);
  return it == sessions_.end() ? 0 : it->second->stream->id;
}

absl::Status Scheduler::Advance(SessionId id, absl::Span<const LeaseId> release, uint32_t credits, absl::Time now) {
  const auto it = sessions_.find(id);
  if (it == sessions_.end()) return absl::OkStatus();  // it ended while this was on its way
  Session* const session = it->second.get();
  constexpr uint32_t kMostCredits = 1 << 16;
  if (credits > kMostCredits) {
    return absl::InvalidArgumentError(absl::StrCat("credits: ", credits, " is not in [0, ", kMostCredits, "]"));
  }
  STOKER_RETURN_IF_ERROR(ReturnLeases(session, release));
  session->credits = std::min<uint64_t>(uint64_t{session->credits} + credits, kMostCredits);
  UpdateWants(session);
  Deliver(session, now);
  PlaceAndAnnounce(now);
  return absl::OkStatus();
}

void Scheduler::AnnounceTo(SessionId id) {
  if (const auto it = sessions_.find(id); it != sessions_.end()) it->second->announce = true;
}

absl::Status Scheduler::ReturnLeases(Session* session, absl::Span<const LeaseId> release) {
  for (const LeaseId lease : release) {
    if (!session->leases.contains(lease)) {
      Place();  // what was returned before it is room
      return absl::InvalidArgumentError(absl::StrCat("release: lease ", lease, " is not held"));
    }
    ReturnLease(lease);
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> Scheduler::Seek(SessionId id, const Position& position, absl::Span<const LeaseId> release) {
  Session* const session = sessions_.at(id).get();
  STOKER_ASSIGN_OR_RETURN(const uint64_t steps, CheckPosition(*session->stream->spec.source, position));
  STOKER_RETURN_IF_ERROR(ReturnLeases(session, release));
  UnwantAll(session);
  // The client gives back what was announced and is not read; if making it fails, nobody is to hear of it.
  for (const auto& [lease, batch] : session->announced) EraseOne(&batch->announced_to, session);
  session->announced.clear();
  session->credits = 0;
  session->passed_over = 0;
  session->next = position;
  session->stream->last_steps = steps;
  return steps;
}

void Scheduler::CloseSession(SessionId id) {
  const auto it = sessions_.find(id);
  if (it == sessions_.end()) return;
  const std::unique_ptr<Session> session = std::move(it->second);
  sessions_.erase(it);
  Stream* const stream = session->stream;
  UnwantAll(session.get());
  copies_.SessionClosed(id, session->leases);
  while (!session->leases.empty()) ReturnLease(*session->leases.begin());
  EraseOne(&stream->sessions, session.get());
  CloseStreamIfUnused(stream);
  UpdateMayKeep();
  Place();
}

void Scheduler::EndSession(Session* session, const absl::Status& reason) {
  const SessionId id = session->id;
  CloseSession(id);
  actions_->End(id, reason);
}

void Scheduler::Drain(const absl::Status& reason) {
  draining_ = reason;
  while (!sessions_.empty()) EndSession(sessions_.begin()->second.get(), reason);
}

// Grows what the session wants to what its credits and its lease limit allow.
void Scheduler::UpdateWants(Session* session) {
  if (AtEndOfEpoch(*session->stream, session->next)) return;  // Deliver moves on first
  const auto held = static_cast<uint32_t>(session->leases.size());
  const uint32_t may_hold = options_.lease_limit > held ? options_.lease_limit - held : 0;
  const uint32_t target = std::min(session->credits, may_hold);
  while (session->wanted < target) {
    const Position at = After(*session->stream, session->next, session->wanted);
    if (session->EndsBefore(at)) return;
    ++session->wanted;
    Want(session, at);
  }
}

// A batch may be larger than all of the epoch that its session opened at.
absl::Status Scheduler::CheckFits(const Batch& batch) const {
  const uint64_t bytes = batch.layout.extent_bytes();
  if (bytes <= pool_->largest_extent()) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("batch ", batch.at.step, " of epoch ", batch.at.epoch, " takes ", FormatSize(bytes),
                   ", more than fits: ", FormatSize(pool_->largest_extent()),
                   "; use a budget of bytes, or a larger arena (--arena-bytes, segment_bytes)"));
}

void Scheduler::Want(Session* session, const Position& at) {
  Stream* const stream = session->stream;
  std::unique_ptr<Batch>& batch = stream->batches[at];
  if (batch == nullptr) {
    batch = std::make_unique<Batch>();
    batch->stream = stream;
    batch->at = at;
    batch->order = next_id_++;
    absl::StatusOr<tensor::Layout> layout = stream->spec.source->LayoutAt(at);
    if (layout.ok()) {
      batch->layout = *std::move(layout);
      batch->failure = CheckFits(*batch);
    } else {
      batch->failure = layout.status();
    }
    if (!batch->failure.ok()) batch->state = Batch::State::kFailed;
  }
  batch->wanters.push_back(session);
  if (batch->state == Batch::State::kPlanned) session->planned[at] = batch.get();
}

void Scheduler::Unwant(Session* session, Batch* batch) {
  EraseOne(&batch->wanters, session);
  session->planned.erase(batch->at);
  RemoveIfUseless(batch);
}

void Scheduler::UnwantAll(Session* session) {
  const Stream& stream = *session->stream;
  for (; session->wanted > 0; --session->wanted) {
    Unwant(session, stream.batches.at(After(stream, session->next, session->wanted - 1)).get());
  }
}

bool Scheduler::CanLend(const Session& session, const Batch& batch) {
  if (batch.state == Batch::State::kSealed) return true;
  return session.announce && batch.state == Batch::State::kMaking && batch.failure.ok();
}

// Sends what can be lent, in order, as far as credits go.
void Scheduler::Deliver(Session* session, absl::Time now) {
  Stream* const stream = session->stream;
  v1::SessionReply lent;
  const auto send_lent = [&] {
    if (lent.has_ready()) actions_->Send(session->id, std::exchange(lent, {}));
  };
  while (true) {
    if (AtEndOfEpoch(*stream, session->next)) {
      send_lent();
      v1::SessionReply reply;
      reply.mutable_end_of_epoch()->set_epoch(session->next.epoch);
      session->next = {session->next.epoch + 1, 0};
      if (!session->EndsBefore(session->next)) {
        reply.mutable_end_of_epoch()->set_next_steps(stream->Steps(session->next.epoch));
      }
      actions_->Send(session->id, std::move(reply));
      UpdateWants(session);
    }
    if (session->wanted == 0) return send_lent();
    Batch* const batch = stream->batches.at(session->next).get();
    if (batch->state == Batch::State::kFailed) {
      const absl::Status failure = batch->failure;  // the batch may go with the session
      send_lent();
      EndSession(session, failure);
      return;
    }
    if (!CanLend(*session, *batch)) return send_lent();
    if (!session->announce) send_lent();  // it may not know of several in a message
    Lend(session, batch, now, lent.has_ready() ? lent.add_following() : lent.mutable_ready());
  }
}

void Scheduler::Lend(Session* session, Batch* batch, absl::Time now, v1::SessionReply::Ready* ready) {
  Stream* const stream = session->stream;
  const LeaseId id = next_id_++;
  leases_[id] = Lease{session, batch, now};
  session->leases.insert(id);
  ++batch->leases;
  --session->wanted;
  --session->credits;
  ++session->next.step;
  ++session->delivered;
  ++stream->delivered;
  EraseOne(&batch->wanters, session);
  UpdateUnleased(batch);
  const bool making = batch->state == Batch::State::kMaking;
  if (making) batch->announced_to.push_back(session);
  if (making || !session->announced.empty()) session->announced.emplace_back(id, batch);

  ready->set_lease(id);
  ready->set_may_keep(may_keep_);
  v1::BatchDescriptor* const descriptor = ready->mutable_batch();
  batch->layout.Describe(descriptor);
  pool_->Describe(batch->extent, descriptor);
  descriptor->set_sequence(batch->sequence);
  descriptor->set_epoch(batch->at.epoch);
  descriptor->set_step(batch->at.step);
  descriptor->set_samples(stream->spec.source->SamplesAt(batch->at));
}

void Scheduler::ReturnLease(LeaseId id) {
  const auto it = leases_.find(id);
  const Lease lease = it->second;
  leases_.erase(it);
  copies_.LeaseReturned(id);
  if (lease.session != nullptr) {
    lease.session->leases.erase(id);
    TakeAnnounced(lease.session, id);
  }
  Batch* const batch = lease.batch;
  --batch->leases;
  UpdateUnleased(batch);
  if (batch->leases > 0) return;
  if (batch->state == Batch::State::kFailed) return RemoveIfUseless(batch);
  const bool keep =
      batch->state == Batch::State::kMaking || (!batch->stream->forgotten && pool_->reachable(batch->extent));
  if (!keep) FreeExtent(batch);
}

// The lease is being returned, if it is one of those.
void Scheduler::TakeAnnounced(Session* session, LeaseId lease) {
  auto& announced = session->announced;
  const auto it =
      std::find_if(announced.begin(), announced.end(), [&](const auto& each) { return each.first == lease; });
  if (it == announced.end()) return;
  EraseOne(&it->second->announced_to, session);
  announced.erase(it);
  session->ForgetSealed();
}

// ---- reading a batch for a client that cannot map it ----

absl::StatusOr<Scheduler::Pinned> Scheduler::Pin(SessionId session, LeaseId lease, absl::Time now) {
  const auto it = leases_.find(lease);
  if (it == leases_.end() || it->second.session == nullptr || it->second.session->id != session) {
    return absl::AbortedError(absl::StrCat("fetch: session ", session, " does not hold lease ", lease));
  }
  Batch* const batch = it->second.batch;
  if (batch->state != Batch::State::kSealed) {
    return absl::FailedPreconditionError(absl::StrCat("fetch: the batch of lease ", lease, " is not made yet"));
  }
  const LeaseId pin = next_id_++;
  leases_[pin] = Lease{nullptr, batch, now};
  ++batch->leases;
  return Pinned{pin, batch->extent};
}

void Scheduler::Unpin(LeaseId pin) {
  ReturnLease(pin);
  Place();
}

// ---- copies in a device's memory ----

absl::Status Scheduler::Claim(SessionId session, const v1::SessionRequest::Claim& claim) {
  const auto it = leases_.find(claim.lease());
  if (it == leases_.end() || it->second.session == nullptr || it->second.session->id != session) {
    return absl::InvalidArgumentError(absl::StrCat("claim: lease ", claim.lease(), " is not held"));
  }
  const Batch& batch = *it->second.batch;
  if (batch.state != Batch::State::kSealed) {
    return absl::InvalidArgumentError(absl::StrCat("claim: the batch of lease ", claim.lease(), " is not made yet"));
  }
  return copies_.Claim(session, batch.stream->id, batch.at, claim);
}

// ---- data sets ----

bool Scheduler::InUse(absl::string_view store) const {
  return std::any_of(sessions_.begin(), sessions_.end(),
                     [&](const auto& entry) { return entry.second->stream->spec.store == store; });
}

void Scheduler::DropUnreachable() {
  for (auto it = unleased_.begin(); it != unleased_.end();) {
    Batch* const batch = *it++;
    if (!pool_->reachable(batch->extent)) FreeExtent(batch);
  }
  Place();
}

void Scheduler::Forget(absl::string_view store) {
  for (const auto& [id, stream] : streams_) {
    if (stream->spec.store == store) stream->forgotten = true;
  }
  for (auto it = unleased_.begin(); it != unleased_.end();) {
    Batch* const batch = *it++;
    if (batch->stream->spec.store == store) FreeExtent(batch);
  }
}

}  // namespace stoker::schedule
