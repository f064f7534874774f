// SPDX-License-Identifier: Apache-2.0
#include "client/src/session.h"

#include <algorithm>
#include <atomic>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/src/fetch.h"
#include "client/src/grpc_status.h"
#include "shared/base/status_macros.h"
#include "shared/tensor/layout.h"

namespace stoker::client {
namespace {

constexpr uint64_t kFewLarge = 2;
constexpr uint64_t kManySmall = 4;
constexpr uint64_t kLargeBatchBytes = 256 << 20;

// How long a lease or a credit may wait for others to be written with.
constexpr absl::Duration kLinger = absl::Milliseconds(10);

uint64_t FirstDepth(int prefetch) { return prefetch < 0 ? kFewLarge : static_cast<uint64_t>(prefetch); }

// Codes by which gRPC says that a stream broke. The daemon's own errors come as Failed or with another code; a daemon
// that does end a stream with one of these is asked again until the loader's patience ends.
bool IsLoss(absl::StatusCode code) {
  return code == absl::StatusCode::kOk || code == absl::StatusCode::kUnavailable ||
         code == absl::StatusCode::kCancelled || code == absl::StatusCode::kUnknown ||
         code == absl::StatusCode::kInternal;
}

std::atomic<uint64_t> sessions_alive = 0;

std::string Place(const v1::Position& position) { return absl::StrCat(position.epoch(), ":", position.step()); }

}  // namespace

absl::StatusOr<std::shared_ptr<Session>> Session::Start(std::shared_ptr<Connection> connection, SessionOptions options,
                                                        std::shared_ptr<SegmentCache> segments) {
  std::shared_ptr<Session> session(new Session(std::move(connection), std::move(options), std::move(segments)));
  try {
    session->reader_ = std::thread([raw = session.get()] { raw->RunReader(); });
    session->writer_ = std::thread([raw = session.get()] { raw->RunWriter(); });
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(absl::StrCat("open stream: no thread to be had: ", error.what()));
  }
  return session;
}

Session::Session(std::shared_ptr<Connection> connection, SessionOptions options, std::shared_ptr<SegmentCache> segments)
    : connection_(std::move(connection)),
      options_(std::move(options)),
      segments_(std::move(segments)),
      inline_(options_.transport == Transport::kInline),
      expected_(options_.open.position()),
      depth_(FirstDepth(options_.prefetch)),
      granted_(depth_) {
  context_.set_initial_metadata_corked(true);  // goes with the first message
  ++sessions_alive;
}

Session::~Session() {
  context_.TryCancel();
  {
    absl::MutexLock lock(&mu_);
    quit_ = true;
    if (fetch_ != nullptr) fetch_->TryCancel();
    pending_.Signal();
  }
  if (reader_.joinable()) reader_.join();
  if (writer_.joinable()) writer_.join();
  --sessions_alive;
}

// ---- for the user's threads ----

absl::StatusOr<v1::SessionReply::Opened> Session::WaitOpened(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  const auto there = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return is_open_ && !SeekingLocked(); };
  while (!there() && !stopped_ && !end_.ended) {
    if (changed_.WaitWithDeadline(&mu_, deadline) && !there() && !stopped_ && !end_.ended) {
      return absl::DeadlineExceededError("the daemon has not opened the stream yet");
    }
  }
  if (stopped_) return absl::CancelledError("the loader is closed");
  if (!there()) return end_status_;
  return opened_;
}

absl::StatusOr<Session::Step> Session::Next(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  bool expired = false;
  while (queue_.empty() || end_.ended || stopped_) {
    if (stopped_) return absl::CancelledError("the loader is closed");
    if (end_.ended) return end_status_;
    if (opened_.lease_limit() > 0 && held_ >= opened_.lease_limit()) {
      return absl::ResourceExhaustedError(
          absl::StrCat("next batch: ", held_, " batches are held, and a session may hold ", opened_.lease_limit(),
                       ": let go of some, or copy what is needed for longer"));
    }
    GrantLocked(std::max<uint64_t>(depth_, 1));
    if (DueLocked()) {
      mu_.Unlock();
      Flush();
      mu_.Lock();
      continue;
    }
    if (expired) return absl::DeadlineExceededError("the next batch is not ready yet");
    WakeWriterLocked();
    expired = changed_.WaitWithDeadline(&mu_, deadline);
  }
  Item item = std::move(queue_.front());
  queue_.pop_front();
  if (item.batch == nullptr) return Step{nullptr, item.next_steps};
  --queued_batches_;
  if (item.leased) {
    ++held_;
    item.batch->AttachLease(shared_from_this(), item.lease);
  }
  GrantLocked(depth_);
  WakeWriterLocked();
  return Step{std::move(item.batch), 0};
}

void Session::Release(uint64_t lease) {
  absl::MutexLock lock(&mu_);
  --held_;
  ReleaseLocked(lease);
  WakeWriterLocked();
}

void Session::SetPrefetch(int prefetch) {
  absl::MutexLock lock(&mu_);
  depth_ = FirstDepth(prefetch);
  GrantLocked(depth_);
  WakeWriterLocked();
}

// Written at once and by the caller: the daemon may begin, and the batches for the place before are no use.
bool Session::Seek(const v1::Position& position) {
  {
    absl::MutexLock lock(&mu_);
    if (end_.ended || stopped_) return false;
    DropQueueLocked();
    target_ = position;
    seek_pending_ = true;
    granted_ = 0;
    pending_credits_ = 0;
    GrantLocked(depth_);
    if (fetch_ != nullptr) fetch_->TryCancel();
    if (!is_open_) return true;  // is written then
  }
  Flush();
  return true;
}

void Session::Stop() {
  absl::MutexLock lock(&mu_);
  stopped_ = true;
  DropQueueLocked();
  pending_credits_ = 0;
  WakeWriterLocked();
  if (!is_open_) context_.TryCancel();
  if (fetch_ != nullptr) fetch_->TryCancel();
  changed_.SignalAll();
}

Session::End Session::end() const {
  absl::MutexLock lock(&mu_);
  return end_;
}

uint64_t Session::held() const {
  absl::MutexLock lock(&mu_);
  return held_;
}

uint64_t Session::alive() { return sessions_alive; }

std::string Session::transport() const {
  absl::MutexLock lock(&mu_);
  return transport_;
}

std::string Session::notice() const {
  absl::MutexLock lock(&mu_);
  return notice_;
}

// ---- copies in a device's memory ----

absl::StatusOr<LeaseOwner::Claimed> Session::Claim(uint64_t lease, const std::string& device, bool may_offer,
                                                   absl::Time deadline) {
  {
    absl::MutexLock lock(&mu_);
    claims_[lease] = std::nullopt;
  }
  v1::SessionRequest request;
  request.mutable_claim()->set_lease(lease);
  request.mutable_claim()->set_device(device);
  request.mutable_claim()->set_may_offer(may_offer);
  Write(request);
  absl::MutexLock lock(&mu_);
  bool expired = false;
  while (!claims_.at(lease) && !end_.ended && !expired) expired = claimed_.WaitWithDeadline(&mu_, deadline);
  const auto answer = claims_.extract(lease);
  if (answer.mapped()) return *answer.mapped();
  if (end_.ended) return absl::UnavailableError(end_status_.message());
  return absl::DeadlineExceededError("claim: another session has not uploaded the batch yet");
}

void Session::Offer(uint64_t claim, const std::string& memory) {
  v1::SessionRequest request;
  request.mutable_offer()->set_claim(claim);
  request.mutable_offer()->set_memory(memory);
  Write(request);
}

void Session::Withdraw(uint64_t claim) {
  {
    absl::MutexLock lock(&mu_);
    withdrawn_[claim] = false;
  }
  v1::SessionRequest request;
  request.mutable_withdraw()->set_claim(claim);
  Write(request);
}

absl::StatusOr<bool> Session::IsFree(uint64_t claim) {
  absl::MutexLock lock(&mu_);
  const auto withdrawn = withdrawn_.find(claim);
  const bool free = withdrawn != withdrawn_.end() && withdrawn->second;
  if (!free && end_.ended) return absl::UnavailableError(end_status_.message());
  if (free) withdrawn_.erase(withdrawn);
  return free;
}

// ---- credits and leases ----

bool Session::SeekingLocked() const { return seek_pending_ || seeks_ > 0; }

void Session::DropQueueLocked() {
  for (const Item& item : queue_) {
    if (item.leased) ReleaseLocked(item.lease);
  }
  queue_.clear();
  queued_batches_ = 0;
}

bool Session::PendingLocked() const {
  return is_open_ && !end_.ended && (seek_pending_ || pending_credits_ > 0 || !pending_releases_.empty());
}

// A daemon whose arena has room for few batches cannot go on without the leases.
bool Session::DueLocked() const {
  if (!PendingLocked()) return false;
  if (seek_pending_) return true;
  const bool scarce = opened_.arena_batches() < 4 * depth_;
  const uint64_t enough = scarce || stopped_ ? 1 : std::max<uint64_t>(depth_ / 2, 1);
  return pending_credits_ >= enough || pending_releases_.size() >= enough;
}

void Session::WakeWriterLocked() {
  if (lingering_ ? DueLocked() : PendingLocked()) pending_.Signal();
}

void Session::GrantLocked(uint64_t depth) {
  if (opened_.lease_limit() > 0) depth = std::min(depth, opened_.lease_limit());
  if (stopped_ || granted_ + queued_batches_ >= depth) return;
  const uint64_t credits = depth - granted_ - queued_batches_;
  granted_ += credits;
  pending_credits_ += credits;
}

void Session::ReleaseLocked(uint64_t lease) { pending_releases_.push_back(lease); }

void Session::Flush() {
  absl::MutexLock write(&write_mu_);
  {
    absl::MutexLock lock(&mu_);
    if (!PendingLocked()) return;
    FillRequestLocked();
  }
  (void)stream_->Write(request_);
}

// A broken stream is the reader's to see.
void Session::Write(const v1::SessionRequest& request) {
  absl::MutexLock write(&write_mu_);
  if (end().ended) return;
  (void)stream_->Write(request);
}

void Session::FillRequestLocked() {
  const auto fill = [this](auto* message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    message->set_credits(static_cast<uint32_t>(std::exchange(pending_credits_, 0)));
    message->mutable_release()->Assign(pending_releases_.begin(), pending_releases_.end());
    pending_releases_.clear();
  };
  if (!std::exchange(seek_pending_, false)) return fill(request_.mutable_advance());
  ++seeks_;
  *request_.mutable_seek()->mutable_position() = target_;
  fill(request_.mutable_seek());
}

// Looks again after kLinger until nothing was pending for so long, so that a busy session wakes it once a message.
void Session::RunWriter() {
  absl::MutexLock lock(&mu_);
  bool waited = false;  // kLinger, without being woken
  while (!quit_) {
    if (DueLocked() || (waited && PendingLocked())) {
      mu_.Unlock();
      Flush();
      mu_.Lock();
      lingering_ = true;
      waited = false;
    } else if (lingering_ && !waited) {
      waited = pending_.WaitWithTimeout(&mu_, kLinger);
    } else {
      lingering_ = PendingLocked();
      waited = false;
      if (!lingering_) pending_.Wait(&mu_);
    }
  }
}

// ---- the reader thread ----

void Session::RunReader() {
  v1::SessionRequest request;
  *request.mutable_open() = options_.open;
  request.mutable_open()->set_credits(static_cast<uint32_t>(FirstDepth(options_.prefetch)));
  stream_ = connection_->stoker().Session(&context_);
  (void)stream_->Write(request);  // when it fails, Finish tells why
  v1::SessionReply reply;
  while (stream_->Read(&reply)) {
    const absl::Status status = HandleReply(reply);
    if (status.ok()) continue;
    SetEnd(status, absl::IsUnavailable(status));
    context_.TryCancel();
  }
  absl::Status status = ToStatus(stream_->Finish());
  const bool lost = IsLoss(status.code());
  if (status.ok()) status = absl::UnavailableError("the daemon ended the session");
  SetEnd(std::move(status), lost);
}

void Session::SetEnd(absl::Status status, bool lost) {
  absl::MutexLock lock(&mu_);
  if (end_.ended) return;
  end_ = {true, lost, queued_batches_, SeekingLocked()};
  end_status_ = std::move(status);
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
      return HandleReady(*reply.mutable_ready());
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
      HandleCopyFree(reply.copy_free().claim());
      return absl::OkStatus();
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
  if (options_.prefetch < 0 && opened_.batch_bytes() <= kLargeBatchBytes) depth_ = kManySmall;
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

void Session::HandleCopyFree(uint64_t claim) {
  absl::MutexLock lock(&mu_);
  if (const auto withdrawn = withdrawn_.find(claim); withdrawn != withdrawn_.end()) withdrawn->second = true;
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
      notice_ = absl::StrCat("batches come over the socket: ", segment.status().message());
    }
    return Fetch(descriptor, lease);
  }
  (*segment)->Populate(descriptor.extent_offset_bytes(), descriptor.extent_size_bytes());
  const uint8_t* extent = (*segment)->data() + descriptor.extent_offset_bytes();
  const absl::Span<const uint8_t> mapping((*segment)->data(), (*segment)->size_bytes());
  auto batch = std::make_shared<BatchData>(std::move(descriptor), extent, *std::move(segment), false);
  batch->SetMapping(mapping);
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
    // A daemon that goes away ends its calls in one of several ways.
    const bool lost = IsLoss(bytes.status().code()) || absl::IsAborted(bytes.status());
    return lost ? absl::UnavailableError(bytes.status().message()) : bytes.status();
  }
  const uint8_t* extent = bytes->get();
  auto batch = std::make_shared<BatchData>(std::move(descriptor), extent, *std::move(bytes), true);
  STOKER_RETURN_IF_ERROR(Annotate(batch->Check(), "a batch just fetched"));
  return batch;
}

}  // namespace stoker::client
