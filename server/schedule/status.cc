// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "server/schedule/scheduler.h"

namespace stoker::schedule {
namespace {

void FillPosition(const Position& from, v1::Position* to) {
  to->set_epoch(from.epoch);
  to->set_step(from.step);
}

void FillStream(const Stream& stream, v1::StatusReply::Stream* out) {
  out->set_id(stream.id);
  out->set_dataset(stream.spec.dataset);
  out->set_clients(stream.sessions.size());
  out->set_batches_made(stream.made);
  out->set_batches_delivered(stream.delivered);
  out->set_batch_bytes(stream.spec.source->full_batch_bytes());
  out->set_steps_per_epoch(stream.last_steps);
  out->set_oversize_samples(stream.spec.source->oversize_samples());
  *out->mutable_recipe() = stream.spec.recipe;
  *out->mutable_plan() = stream.spec.plan;
}

}  // namespace

void Scheduler::FillStatus(absl::Time now, v1::StatusReply* status) const {
  v1::StatusReply::Extents extents;
  for (const auto& [id, stream] : streams_) {
    FillStream(*stream, status->add_streams());
    for (const auto& [at, batch] : stream->batches) {
      if (batch->state == Batch::State::kPlanned) extents.set_planned(extents.planned() + 1);
      if (batch->state == Batch::State::kMaking) extents.set_making(extents.making() + 1);
      if (batch->state != Batch::State::kSealed) continue;
      if (batch->leases > 0) {
        extents.set_leased(extents.leased() + 1);
      } else {
        extents.set_sealed(extents.sealed() + 1);
      }
    }
  }
  for (const auto& [id, session] : sessions_) {
    v1::StatusReply::Session* const out = status->add_sessions();
    out->set_id(id);
    out->set_pid(session->spec.pid);
    out->set_host(session->spec.host);
    out->set_stream(session->stream->id);
    out->set_leases(session->leases.size());
    if (!session->leases.empty()) {
      out->set_oldest_lease_seconds(absl::ToDoubleSeconds(now - leases_.at(*session->leases.begin()).since));
    }
    out->set_credits(session->credits);
    FillPosition(session->next, out->mutable_position());
    out->set_age_seconds(absl::ToDoubleSeconds(now - session->opened));
    out->set_waiting(session->wanted > 0 || !session->announced.empty());
    out->set_batches_delivered(session->delivered);
  }
  const auto by_id = [](const auto& a, const auto& b) { return a.id() < b.id(); };
  std::sort(status->mutable_streams()->begin(), status->mutable_streams()->end(), by_id);
  std::sort(status->mutable_sessions()->begin(), status->mutable_sessions()->end(), by_id);
  *status->mutable_arena()->mutable_extents() = extents;
  status->mutable_arena()->set_evictions(evictions_);
}

}  // namespace stoker::schedule
