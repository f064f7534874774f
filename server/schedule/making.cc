// SPDX-License-Identifier: Apache-2.0
// How batches find room, get made, and go.
#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/schedule/scheduler.h"

namespace stoker::schedule {
namespace {

// So many workers that died while they made a sample died of it. Two may be killed by somebody one after the other, and
// the second be given at once what the first had begun.
constexpr int kFatalLosses = 3;

constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();

// Batches from `from` to `to`, or kNever if `to` lies behind.
uint64_t StepsBetween(const Stream& stream, const Position& from, const Position& to) {
  if (to < from) return kNever;
  if (to.epoch - from.epoch > 64) return (to.epoch - from.epoch) * stream.Steps(from.epoch);  // nobody asks exactly
  uint64_t steps = to.step;
  for (uint64_t epoch = from.epoch; epoch < to.epoch; ++epoch) steps += stream.Steps(epoch);
  return steps - from.step;
}

// How soon a session that does not want the batch yet will come to it; kNever if none will.
uint64_t StepsUntilWanted(const Batch& batch) {
  uint64_t least = kNever;
  for (const Session* session : batch.stream->sessions) {
    if (session->EndsBefore(batch.at)) continue;
    least = std::min(least, StepsBetween(*batch.stream, session->next, batch.at));
  }
  return least;
}

}  // namespace

uint64_t Scheduler::Urgency(const Batch& batch) const {
  uint64_t least = kNever;
  for (const auto* sessions : {&batch.wanters, &batch.announced_to}) {
    for (const Session* session : *sessions) {
      least = std::min(least, StepsBetween(*batch.stream, session->waits_for(), batch.at) + session->in_hand());
    }
  }
  return least;
}

// Whether a session is ahead of the batch, and near.
bool Scheduler::CatchesUp(const Batch& batch) {
  const auto& sessions = batch.stream->sessions;
  return std::any_of(sessions.begin(), sessions.end(), [&batch](const Session* session) {
    const Position at = session->waits_for();
    return batch.at < at && StepsBetween(*batch.stream, batch.at, at) <= kCatchUpSteps;
  });
}

// Gives room to the planned batches that can have it, the most urgent first. Sessions take turns, each with the first
// of its planned batches, so that what is far ahead costs nothing as long as there is no room for what comes before it.
void Scheduler::Place() {
  if (!draining_.ok()) return;
  std::vector<Turn> turns;  // a heap
  for (const auto& [id, session] : sessions_) {
    if (!session->planned.empty()) turns.push_back(TurnOf(session.get()));
  }
  std::make_heap(turns.begin(), turns.end());
  // What was refused, by slots: no use in trying as much for a less urgent one.
  absl::flat_hash_map<uint64_t, uint64_t> too_large;
  uint64_t placed = 0;
  std::vector<const Session*> waiting;  // for room
  while (!turns.empty()) {
    std::pop_heap(turns.begin(), turns.end());
    const Turn turn = turns.back();
    turns.pop_back();
    Session* const session = turn.session;
    if (session->planned.empty()) continue;  // placed on another's turn
    Batch* const batch = session->planned.begin()->second;
    if (batch == turn.batch) {
      // Past a batch that finds no room goes only what a session waits for next: looking ahead, small batches would
      // take each gap before it is large enough.
      if (!too_large.empty() && batch->at != session->next) continue;
      const uint64_t bytes = batch->layout.extent_bytes();
      const auto refused = too_large.find(batch->stream->slot_bytes());
      if ((refused != too_large.end() && bytes >= refused->second) || !PlaceOne(batch, turn.urgency)) {
        uint64_t& least = too_large.try_emplace(batch->stream->slot_bytes(), bytes).first->second;
        least = std::min(least, bytes);
        if (batch->at == session->next) waiting.push_back(session);
        continue;
      }
      ++placed;
    }
    if (session->planned.empty()) continue;
    turns.push_back(TurnOf(session));
    std::push_heap(turns.begin(), turns.end());
  }
  TellOthers(waiting);
  if (placed == 0) return;
  for (const auto& [id, session] : sessions_) {
    session->passed_over = session->WaitsForRoom() ? session->passed_over + placed : 0;
  }
}

void Scheduler::TellOthers(const std::vector<const Session*>& waiting) {
  if (waiting.empty()) return;
  for (const auto& [id, session] : sessions_) {
    if (session->told_of_others || session->leases.empty()) continue;
    if (waiting.size() == 1 && waiting.front() == session.get()) continue;
    session->told_of_others = true;
    v1::SessionReply reply;
    reply.mutable_room_wanted();
    actions_->Send(id, std::move(reply));
  }
}

// Then leases batches that are being made by now to the sessions that ask for it. At the end of an epoch they may want
// more after that.
void Scheduler::PlaceAndAnnounce(absl::Time now) {
  Place();
  std::vector<SessionId> announce;
  for (const auto& [id, session] : sessions_) {
    if (!session->announce || session->wanted == 0) continue;
    if (CanLend(*session, *session->stream->batches.at(session->next))) announce.push_back(id);
  }
  if (announce.empty()) return;
  for (const SessionId id : announce) {  // to deliver may end another
    if (const auto it = sessions_.find(id); it != sessions_.end()) Deliver(it->second.get(), now);
  }
  PlaceAndAnnounce(now);
}

// A session that keeps leases while it waits would wait for ever beside one that keeps none: each time when as many
// batches as there are sessions went past it, it counts as if it held one less.
Scheduler::Turn Scheduler::TurnOf(Session* session) const {
  Batch* const batch = session->planned.begin()->second;
  uint64_t urgency = StepsBetween(*batch->stream, session->waits_for(), batch->at) + session->in_hand();
  if (session->WaitsForRoom()) urgency -= std::min(urgency, session->passed_over / sessions_.size());
  return {urgency, CatchesUp(*batch), session, batch};
}

bool Scheduler::PlaceOne(Batch* batch, uint64_t urgency) {
  const uint64_t slot = batch->stream->slot_bytes();
  std::optional<ExtentRef> extent = pool_->Allocate(batch->layout.extent_bytes(), slot);
  while (!extent) {
    if (!EvictFor(urgency)) return false;
    extent = pool_->Allocate(batch->layout.extent_bytes(), slot);
  }
  batch->extent = *extent;
  batch->sequence = next_id_++;
  batch->state = Batch::State::kMaking;
  for (Session* session : batch->wanters) session->planned.erase(batch->at);
  actions_->BeginFilling(batch->extent, batch->at);
  CutIntoParts(batch);
  return true;
}

// Frees one sealed batch that matters less than one of `urgency`. A batch that no session comes to any more is taken at
// once; else the choice is among the least recently used, so that the cost stays bounded.
bool Scheduler::EvictFor(uint64_t urgency) {
  constexpr int kLookedAt = 32;
  Batch* victim = nullptr;
  uint64_t victim_distance = 0;
  int looked_at = 0;
  for (Batch* batch : unleased_) {
    if (!batch->wanters.empty()) continue;
    const uint64_t distance = StepsUntilWanted(*batch);
    if (victim == nullptr || distance > victim_distance) {
      victim = batch;
      victim_distance = distance;
    }
    if (distance == kNever || ++looked_at == kLookedAt) break;
  }
  if (victim == nullptr) {
    uint64_t least_urgent = urgency;
    for (Batch* batch : unleased_) {
      const uint64_t of_batch = Urgency(*batch);
      if (of_batch > least_urgent) {
        victim = batch;
        least_urgent = of_batch;
      }
    }
  }
  if (victim == nullptr) return false;
  ++evictions_;
  FreeExtent(victim);
  return true;
}

void Scheduler::CutIntoParts(Batch* batch) {
  const auto samples = static_cast<uint32_t>(batch->stream->spec.source->SamplesAt(batch->at));
  const bool busy = parts_.size() >= options_.parallel_parts;
  const uint64_t by_bytes =
      batch->layout.extent_bytes() / (busy ? options_.busy_part_bytes : options_.least_part_bytes);
  const uint64_t most = std::min<uint64_t>(options_.parallel_parts, by_bytes);
  const uint64_t least = std::max(1u, (samples + options_.part_samples - 1) / options_.part_samples);
  const auto parts = static_cast<uint32_t>(std::clamp<uint64_t>(most, least, std::max(samples, 1u)));
  for (uint32_t i = 0; i < parts; ++i) {
    const auto begin = static_cast<uint32_t>(uint64_t{samples} * i / parts);
    const auto end = static_cast<uint32_t>(uint64_t{samples} * (i + 1) / parts);
    AddPart(batch, begin, end - begin, 0);
  }
  actions_->PartsReady();
}

void Scheduler::AddPart(Batch* batch, uint32_t first, uint32_t count, int losses) {
  const PartId id = next_id_++;
  parts_[id] = PartState{{id, batch->stream->id, batch->at, first, count, batch->extent}, batch, losses};
  ++batch->parts_left;
  if (losses > 0) {
    ready_parts_.push_front(id);
  } else {
    ready_parts_.push_back(id);
  }
}

// Of a batch that fails anyway.
void Scheduler::DropReadyParts(Batch* batch) {
  std::erase_if(ready_parts_, [&](PartId id) {
    const auto it = parts_.find(id);
    if (it->second.batch != batch) return false;
    parts_.erase(it);
    --batch->parts_left;
    return true;
  });
}

// The most urgent; among equals one by which a session catches up, then the oldest.
std::optional<Part> Scheduler::NextPart() {
  constexpr int kLookedAt = 1024;  // so that the cost stays bounded
  auto best = ready_parts_.end();
  std::pair<uint64_t, bool> least(kNever, true);
  int looked_at = 0;
  for (auto it = ready_parts_.begin(); it != ready_parts_.end() && looked_at < kLookedAt; ++it, ++looked_at) {
    const Batch& batch = *parts_.at(*it).batch;
    const std::pair rank(Urgency(batch), !CatchesUp(batch));
    if (best != ready_parts_.end() && rank >= least) continue;
    best = it;
    least = rank;
    if (rank == std::pair<uint64_t, bool>(0, false)) break;
  }
  if (best == ready_parts_.end()) return std::nullopt;
  const PartId id = *best;
  ready_parts_.erase(best);
  return parts_.at(id).part;
}

void Scheduler::PartDone(PartId id, const absl::Status& status, absl::Time now) {
  const auto it = parts_.find(id);
  if (it == parts_.end()) return;
  Batch* const batch = it->second.batch;
  parts_.erase(it);
  --batch->parts_left;
  batch->failure.Update(status);
  if (!batch->failure.ok()) DropReadyParts(batch);
  if (batch->parts_left == 0) FinishMaking(batch, now);
}

void Scheduler::PartLost(PartId id, absl::string_view how, absl::Time now) {
  const auto it = parts_.find(id);
  if (it == parts_.end()) return;
  const PartState lost = it->second;
  parts_.erase(it);
  Batch* const batch = lost.batch;
  --batch->parts_left;
  if (lost.part.count <= 1 && lost.losses + 1 >= kFatalLosses) {
    const Stream& stream = *batch->stream;
    const std::string what = lost.part.count == 0
                                 ? absl::StrCat("the empty batch ", batch->at.step, " of epoch ", batch->at.epoch)
                                 : stream.spec.source->DescribeSample(batch->at, lost.part.first);
    batch->failure.Update(absl::InternalError(absl::StrCat("making ", what, " of data set ", stream.spec.dataset, ": ",
                                                           kFatalLosses, " workers died of it (", how, ")")));
  } else if (batch->failure.ok()) {
    // By halves would need fewer parts, but the sample that kills is found at once this way, and it is rare.
    for (uint32_t i = std::max(lost.part.count, 1u); i > 0; --i) {
      AddPart(batch, lost.part.first + i - 1, std::min(lost.part.count, 1u), lost.losses + 1);
    }
    actions_->PartsReady();
  }
  if (!batch->failure.ok()) DropReadyParts(batch);
  if (batch->parts_left == 0) FinishMaking(batch, now);
}

void Scheduler::PartReturned(PartId id) {
  if (!parts_.contains(id)) return;
  ready_parts_.push_front(id);
  actions_->PartsReady();
}

void Scheduler::FinishMaking(Batch* batch, absl::Time now) {
  if (batch->failure.ok()) {
    batch->state = Batch::State::kSealed;
    ++batch->stream->made;
    actions_->Seal(batch->extent, batch->sequence);
    for (Session* session : std::exchange(batch->announced_to, {})) session->ForgetSealed();
    UpdateUnleased(batch);
    if (batch->stream->forgotten) {  // then nobody wants it
      FreeExtent(batch);
      Place();
      return;
    }
  } else {
    pool_->Free(batch->extent);
    batch->state = Batch::State::kFailed;
  }
  Notify(batch, now);
  PlaceAndAnnounce(now);
}

// Who wants the batch, or was announced it and does not get it.
void Scheduler::Notify(Batch* batch, absl::Time now) {
  // By id: delivering may end a session, and the last one that goes takes the batch with it.
  std::vector<SessionId> wanters, announced_to;
  for (const Session* session : batch->wanters) wanters.push_back(session->id);
  for (const Session* session : batch->announced_to) announced_to.push_back(session->id);
  const absl::Status failure = batch->failure;
  Stream* const stream = batch->stream;
  const bool nobody = wanters.empty() && announced_to.empty();
  if (nobody) RemoveIfUseless(batch);
  for (const SessionId id : wanters) {
    const auto it = sessions_.find(id);
    if (it != sessions_.end()) Deliver(it->second.get(), now);
  }
  for (const SessionId id : announced_to) {
    const auto it = sessions_.find(id);
    if (it != sessions_.end()) EndSession(it->second.get(), failure);
  }
  if (nobody) CloseStreamIfUnused(stream);
}

// Keeps unleased_ what its name says; the batch was used just now.
void Scheduler::UpdateUnleased(Batch* batch) {
  if (batch->in_unleased) unleased_.erase(batch->unleased);
  batch->in_unleased = batch->state == Batch::State::kSealed && batch->leases == 0;
  if (batch->in_unleased) batch->unleased = unleased_.insert(unleased_.end(), batch);
}

// Takes the extent of a sealed batch without leases. Wanted, the batch is planned anew; else it is gone.
void Scheduler::FreeExtent(Batch* batch) {
  pool_->Free(batch->extent);
  batch->state = Batch::State::kPlanned;
  UpdateUnleased(batch);
  for (Session* session : batch->wanters) session->planned[batch->at] = batch;
  Stream* const stream = batch->stream;
  RemoveIfUseless(batch);
  CloseStreamIfUnused(stream);
}

// A batch that nobody wants and that holds no bytes is forgotten.
void Scheduler::RemoveIfUseless(Batch* batch) {
  if (!batch->wanters.empty() || batch->leases > 0) return;
  if (batch->state != Batch::State::kPlanned && batch->state != Batch::State::kFailed) return;
  batch->stream->batches.erase(batch->at);
}

}  // namespace stoker::schedule
