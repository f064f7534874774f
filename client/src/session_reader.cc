// SPDX-License-Identifier: Apache-2.0
// The reader thread of a session: what the daemon says, and how a batch's bytes are had.
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/src/fetch.h"
#include "client/src/grpc_status.h"
#include "client/src/session.h"
#include "shared/base/status_macros.h"
#include "shared/tensor/layout.h"

namespace stoker::client {
namespace {

// Batches ahead: small ones more, for making them takes less than it may take a thread to wake. The more, the fewer
// messages a batch; but never so many that the daemon wants each lease back at once.
uint64_t AutomaticDepth(const v1::SessionReply::Opened& opened) {
  constexpr uint64_t kLargeBatchBytes = 256 << 20;
  constexpr uint64_t kAheadBytes = 128 << 20;
  if (opened.batch_bytes() > kLargeBatchBytes) return 2;
  uint64_t depth = std::clamp<uint64_t>(kAheadBytes / std::max<uint64_t>(opened.batch_bytes(), 1), 8, 32);
  depth = std::min(depth, std::max<uint64_t>(opened.steps_per_epoch(), 8));  // who jumps, jumps to an epoch
  return std::max<uint64_t>(std::min(depth, opened.arena_batches() / 4), 4);
}

// Codes by which gRPC says that a stream broke. The daemon's own errors come as Failed or with another code; a daemon
// that does end a stream with one of these is asked again until the loader's patience ends.
bool IsLoss(absl::StatusCode code) {
  return code == absl::StatusCode::kOk || code == absl::StatusCode::kUnavailable ||
         code == absl::StatusCode::kCancelled || code == absl::StatusCode::kUnknown ||
         code == absl::StatusCode::kInternal;
}

std::string Place(const v1::Position& position) { return absl::StrCat(position.epoch(), ":", position.step()); }

}  // namespace

void Session::RunReader() {
  v1::SessionRequest request;
  *request.mutable_open() = options_.open;
  request.mutable_open()->set_credits(static_cast<uint32_t>(FirstDepth(options_.prefetch)));
  stream_ = connection_->stoker().Session(&context_);
  (void)stream_->Write(request);  // when it fails, Finish tells why
  v1::SessionReply reply;
  std::optional<uint64_t> until_lane;
  for (uint64_t replies = 1; stream_->Read(&reply); ++replies) {
    const bool lane = reply.opened().lane() && !connection_->lane_path().empty();
    if (Take(reply) && lane) {
      const absl::StatusOr<uint64_t> attached = AttachLane();
      if (attached.ok()) until_lane = *attached;
      if (!attached.ok() && lane_) ::shutdown(lane_->fd(), SHUT_RDWR);
    }
    if (replies == until_lane) ReadLane();
  }
  absl::Status status = ToStatus(stream_->Finish());
  const bool lost = IsLoss(status.code());
  if (lost) status = absl::UnavailableError(status.ok() ? "the daemon ended the session" : status.message());
  SetEnd(std::move(status), lost);
}

bool Session::Take(v1::SessionReply& reply) {
  const absl::Status status = HandleReply(reply);
  if (status.ok()) return true;
  SetEnd(status, absl::IsUnavailable(status));
  context_.TryCancel();
  return false;
}

// Without one, as in a container that has the daemon's socket alone, everything goes by the stream.
absl::StatusOr<uint64_t> Session::AttachLane() {
  STOKER_ASSIGN_OR_RETURN(lane_, Channel::Connect(connection_->lane_path()));
  v1::LaneHello hello;
  {
    absl::MutexLock lock(&mu_);
    if (quit_) return absl::CancelledError("the session is not wanted any more");
    lane_fd_ = lane_->fd();
    hello.set_session(opened_.session());
    hello.set_token(opened_.fetch_token());
  }
  STOKER_RETURN_IF_ERROR(lane_->Send(hello));
  STOKER_ASSIGN_OR_RETURN(const std::optional<Channel::Received> received, lane_->Receive());
  v1::SessionReply reply;
  if (!received || !reply.ParseFromString(received->bytes) || !reply.has_attached()) {
    return absl::InternalError("lane: the daemon did not attach it");
  }
  absl::MutexLock write(&write_mu_);
  by_lane_ = true;
  return reply.attached().stream_replies();
}

// To its end; why it ended comes by the stream.
void Session::ReadLane() {
  v1::SessionReply reply;
  while (true) {
    const absl::StatusOr<std::optional<Channel::Received>> received = lane_->Receive();
    if (!received.ok()) return;
    if (!*received || !reply.ParseFromString((*received)->bytes)) break;
    if (!Take(reply)) break;
  }
  ::shutdown(lane_->fd(), SHUT_RDWR);
}

void Session::SetEnd(absl::Status status, bool lost) {
  absl::MutexLock lock(&mu_);
  if (end_.ended) return;
  end_ = {true, lost, queued_batches_, SeekingLocked()};
  end_status_ = std::move(status);
  WakeForMakingLocked();
  queue_.clear();
  queued_batches_ = 0;
  changed_.SignalAll();
  claimed_.SignalAll();
}

absl::Status Session::HandleReply(v1::SessionReply& reply) {
  switch (reply.message_case()) {
    case v1::SessionReply::kOpened:
      return HandleOpened(*reply.mutable_opened());
    case v1::SessionReply::kReady:
      STOKER_RETURN_IF_ERROR(HandleReady(*reply.mutable_ready()));
      for (v1::SessionReply::Ready& ready : *reply.mutable_following()) STOKER_RETURN_IF_ERROR(HandleReady(ready));
      return absl::OkStatus();
    case v1::SessionReply::kEndOfEpoch:
      return HandleEndOfEpoch(reply.end_of_epoch());
    case v1::SessionReply::kSought:
      return HandleSought(reply.sought());
    case v1::SessionReply::kFailed:
      if (reply.failed().code() == 0) return absl::InternalError("the daemon failed the session without a code");
      return absl::Status(static_cast<absl::StatusCode>(reply.failed().code()), reply.failed().message());
    case v1::SessionReply::kClaimed:
      HandleClaimed(*reply.mutable_claimed());
      return absl::OkStatus();
    case v1::SessionReply::kCopyFree:
      HandleCopyFree(reply.copy_free());
      return absl::OkStatus();
    case v1::SessionReply::kRoomWanted: {
      absl::MutexLock lock(&mu_);
      room_wanted_ = true;
      pending_.Signal();  // the writer waits for longer
      return absl::OkStatus();
    }
    case v1::SessionReply::kAttached:
    case v1::SessionReply::MESSAGE_NOT_SET:
      break;
  }
  return absl::InternalError("the daemon sent a reply that this version does not know: update the client");
}

absl::Status Session::HandleOpened(v1::SessionReply::Opened& opened) {
  absl::MutexLock lock(&mu_);
  opened_ = std::move(opened);
  is_open_ = true;
  steps_ = opened_.steps_per_epoch();
  if (options_.prefetch < 0) depth_ = AutomaticDepth(opened_);
  GrantLocked(depth_);
  WakeWriterLocked();
  changed_.SignalAll();
  return absl::OkStatus();
}

absl::Status Session::HandleEndOfEpoch(const v1::SessionReply::EndOfEpoch& end) {
  absl::MutexLock lock(&mu_);
  if (SeekingLocked()) return absl::OkStatus();
  if (end.epoch() != expected_.epoch() || expected_.step() != steps_) {
    return absl::InternalError(
        absl::StrCat("the daemon ended epoch ", end.epoch(), ", expected was batch ", Place(expected_)));
  }
  expected_.set_epoch(end.epoch() + 1);
  expected_.set_step(0);
  if (end.next_steps() > 0) steps_ = end.next_steps();
  if (stopped_) return absl::OkStatus();
  queue_.push_back({nullptr, 0, false, steps_});
  changed_.Signal();
  return absl::OkStatus();
}

absl::Status Session::HandleSought(const v1::SessionReply::Sought& sought) {
  absl::MutexLock lock(&mu_);
  if (seeks_ == 0) return absl::InternalError("the daemon answered a Seek that it was not asked for");
  --seeks_;
  if (SeekingLocked()) return absl::OkStatus();  // it was overtaken by another
  expected_ = target_;
  steps_ = sought.steps_per_epoch();
  opened_.set_steps_per_epoch(steps_);
  changed_.SignalAll();
  return absl::OkStatus();
}

absl::Status Session::HandleReady(v1::SessionReply::Ready& ready) {
  {
    absl::MutexLock lock(&mu_);
    if (SeekingLocked()) {
      ReleaseLocked(ready.lease());
      WakeWriterLocked();
      return absl::OkStatus();
    }
  }
  if (ready.batch().epoch() != expected_.epoch() || ready.batch().step() != expected_.step()) {
    return absl::InternalError(absl::StrCat("the daemon sent batch ", ready.batch().epoch(), ":", ready.batch().step(),
                                            ", expected was ", Place(expected_)));
  }
  expected_.set_step(expected_.step() + 1);
  absl::StatusOr<std::shared_ptr<BatchData>> batch = Receive(*ready.mutable_batch(), ready.lease());
  absl::MutexLock lock(&mu_);
  const bool unwanted = stopped_ || SeekingLocked();  // by now
  if (!unwanted) granted_ -= std::min<uint64_t>(granted_, 1);
  const bool leased = batch.ok() && !(*batch)->inline_memory();
  if (unwanted || (batch.ok() && !leased)) {
    ReleaseLocked(ready.lease());
    WakeWriterLocked();
  }
  if (unwanted) return absl::OkStatus();
  if (!batch.ok()) return batch.status();
  transport_ = leased ? "shm" : "inline";
  if (ready.has_may_keep()) may_keep_ = ready.may_keep();
  queue_.push_back({*std::move(batch), ready.lease(), leased});
  ++queued_batches_;
  changed_.Signal();
  return absl::OkStatus();
}

void Session::HandleClaimed(v1::SessionReply::Claimed& claimed) {
  const uint64_t lease = claimed.lease();
  {
    absl::MutexLock lock(&mu_);
    if (const auto waited_for = claims_.find(lease); waited_for != claims_.end()) {
      waited_for->second = Claimed{std::move(*claimed.mutable_memory()), claimed.offer()};
      claimed_.SignalAll();
      return;
    }
  }
  if (!claimed.offer()) return;
  v1::SessionRequest request;  // too late: others shall not wait for it
  request.mutable_withdraw()->set_claim(lease);
  Write(request);
}

void Session::HandleCopyFree(const v1::SessionReply::CopyFree& free) {
  absl::MutexLock lock(&mu_);
  const auto withdrawn = withdrawn_.find(free.claim());
  if (withdrawn != withdrawn_.end()) withdrawn->second = free.lost() ? Copy::kLost : Copy::kFree;
}

absl::StatusOr<std::shared_ptr<BatchData>> Session::Receive(v1::BatchDescriptor& descriptor, uint64_t lease) {
  STOKER_RETURN_IF_ERROR(tensor::CheckDescriptor(descriptor));
  if (inline_) return Fetch(descriptor, lease);
  absl::StatusOr<std::shared_ptr<ClientSegment>> segment = segments_->Get(descriptor.segment());
  if (!segment.ok() && options_.transport == Transport::kShm) {
    return Annotate(segment.status(), "transport shm, use auto or inline where memory cannot be shared");
  }
  if (!segment.ok()) {
    inline_ = true;
    {
      absl::MutexLock lock(&mu_);
      // It may be one that is not made yet, which cannot be fetched.
      if (AnnounceLocked()) return absl::UnavailableError(segment.status().message());
      notice_ = absl::StrCat("batches come over the socket: ", segment.status().message());
    }
    return Fetch(descriptor, lease);
  }
  (*segment)->Populate(descriptor.extent_offset_bytes(), descriptor.extent_size_bytes());
  const uint8_t* extent = (*segment)->data() + descriptor.extent_offset_bytes();
  const absl::Span<const uint8_t> mapping((*segment)->data(), (*segment)->size_bytes());
  auto batch = std::make_shared<BatchData>(std::move(descriptor), extent, *std::move(segment), false);
  batch->SetMapping(mapping);
  if (batch->state() == BatchData::State::kMaking) {
    absl::MutexLock lock(&mu_);
    if (AnnounceLocked()) return batch;
  }
  STOKER_RETURN_IF_ERROR(Annotate(batch->Check(), "a batch just announced"));
  return batch;
}

absl::StatusOr<std::shared_ptr<BatchData>> Session::Fetch(v1::BatchDescriptor& descriptor, uint64_t lease) {
  grpc::ClientContext context;
  v1::FetchRequest request;
  {
    absl::MutexLock lock(&mu_);
    if (stopped_ || quit_ || SeekingLocked()) return absl::CancelledError("the batch is not wanted any more");
    fetch_ = &context;
    request.set_session(opened_.session());
    request.set_token(opened_.fetch_token());
  }
  request.set_lease(lease);
  absl::StatusOr<std::shared_ptr<uint8_t>> bytes =
      FetchExtent(connection_->stoker(), request, descriptor.extent_size_bytes(), &context);
  {
    absl::MutexLock lock(&mu_);
    fetch_ = nullptr;
  }
  if (!bytes.ok()) {
    // A daemon that goes away ends its calls in one of several ways, and the next one knows no such session.
    const bool lost =
        IsLoss(bytes.status().code()) || absl::IsAborted(bytes.status()) || absl::IsNotFound(bytes.status());
    return lost ? absl::UnavailableError(bytes.status().message()) : bytes.status();
  }
  const uint8_t* extent = bytes->get();
  auto batch = std::make_shared<BatchData>(std::move(descriptor), extent, *std::move(bytes), true);
  STOKER_RETURN_IF_ERROR(Annotate(batch->Check(), "a batch just fetched"));
  return batch;
}

}  // namespace stoker::client
