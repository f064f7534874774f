// SPDX-License-Identifier: Apache-2.0
#include "client/src/session.h"

#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "client/src/fetch.h"
#include "shared/segment/header.h"

namespace stoker::client {
namespace {

constexpr uint64_t kFewLarge = 2;  // batches ahead, before it is known how large they are

// How long a lease or a credit may wait for others to be written with.
constexpr absl::Duration kLinger = absl::Milliseconds(10);

// Who waits for a batch that is being made looks up so often.
constexpr absl::Duration kLook = absl::Milliseconds(20);

// The daemon has used an announced batch's memory for another: it failed. So long the news may take.
constexpr absl::Duration kEndFollows = absl::Seconds(1);

// Who has not asked for so many of his usual pauses does something else, or can wait as well as others.
constexpr int kPauses = 2;
constexpr absl::Duration kLeastPause = absl::Milliseconds(50);
constexpr absl::Duration kLongestPause = absl::Milliseconds(500);

constexpr size_t kMostReleases = 4096;  // in a message, which a packet of the lane takes

std::atomic<uint64_t> sessions_alive = 0;

// In memory of our own; null if there is none.
std::shared_ptr<BatchData> CopyOf(const BatchData& batch) {
  const uint64_t size = batch.descriptor().extent_size_bytes();
  absl::StatusOr<std::shared_ptr<uint8_t>> bytes = AllocateExtent(size);
  if (!bytes.ok()) return nullptr;
  std::memcpy(bytes->get(), batch.extent(), size);
  const uint8_t* extent = bytes->get();
  return std::make_shared<BatchData>(batch.descriptor(), extent, *std::move(bytes), true);
}

}  // namespace

uint64_t Session::FirstDepth(int prefetch) { return prefetch < 0 ? kFewLarge : static_cast<uint64_t>(prefetch); }

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
      next_(options_.open.position()),
      asked_(absl::Now()),
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
    if (lane_fd_ >= 0) ::shutdown(lane_fd_, SHUT_RDWR);
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
  ++in_next_;
  if (std::exchange(in_epoch_, false)) pause_ = std::max(absl::Now() - asked_, pause_ * 3 / 4);
  const absl::Cleanup left = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    --in_next_;
    asked_ = absl::Now();
  };
  bool expired = false;
  absl::Time gone_by = absl::InfiniteFuture();
  while (true) {
    if (stopped_) return absl::CancelledError("the loader is closed");
    if (end_.ended) return end_status_;
    const std::shared_ptr<BatchData> first = queue_.empty() ? nullptr : queue_.front().batch;
    const BatchData::State state = queue_.empty() ? BatchData::State::kMaking : queue_.front().state();
    if (state == BatchData::State::kSealed) {
      if (first == nullptr || !queue_.front().leased || held_ < may_keep_) break;
      mu_.Unlock();
      std::shared_ptr<BatchData> copy = CopyOf(*first);
      mu_.Lock();
      // Else the session ended meanwhile, and others may have written where the copy was read.
      if (queue_.empty() || queue_.front().batch != first || !first->Check().ok()) continue;
      if (copy != nullptr) KeepCopyLocked(std::move(copy));
      break;
    }
    if (queue_.empty() && opened_.lease_limit() > 0 && held_ >= opened_.lease_limit()) {
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
    if (state == BatchData::State::kGone) {  // its making failed: the session is about to end, or the daemon is wrong
      gone_by = std::min(gone_by, absl::Now() + kEndFollows);
      if (changed_.WaitWithDeadline(&mu_, std::min(deadline, gone_by)) && absl::Now() >= gone_by) return first->Check();
      expired = absl::Now() >= deadline;
    } else if (first != nullptr) {
      mu_.Unlock();
      segment::AwaitSequence(first->extent(), std::min(deadline - absl::Now(), kLook));
      mu_.Lock();
      expired = absl::Now() >= deadline;
    } else {
      expired = changed_.WaitWithDeadline(&mu_, deadline);
    }
  }
  Item item = std::move(queue_.front());
  queue_.pop_front();
  if (item.batch == nullptr) {
    next_.set_epoch(next_.epoch() + 1);
    next_.set_step(0);
    return Step{nullptr, item.next_steps};
  }
  in_epoch_ = true;
  next_.set_step(next_.step() + 1);
  --queued_batches_;
  if (item.leased) {
    ++held_;
    item.batch->AttachLease(shared_from_this(), item.lease);
  }
  GrantLocked(depth_);
  WakeWriterLocked();
  return Step{std::move(item.batch), 0};
}

// In place of the first of the queue.
void Session::KeepCopyLocked(std::shared_ptr<BatchData> copy) {
  ReleaseLocked(queue_.front().lease);
  queue_.front() = {std::move(copy), 0, false};
  if (!notice_.empty()) return;
  notice_ = absl::StrCat("batches beyond ", may_keep_, " that are kept are copies: the arena has room for ",
                         opened_.arena_batches(), ", of all sessions; a larger one (--arena-bytes) saves that");
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
    SeekLocked(position);
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
    withdrawn_[claim] = Copy::kUsed;
  }
  v1::SessionRequest request;
  request.mutable_withdraw()->set_claim(claim);
  Write(request);
}

absl::StatusOr<bool> Session::IsFree(uint64_t claim) {
  absl::MutexLock lock(&mu_);
  const auto withdrawn = withdrawn_.find(claim);
  const Copy copy = withdrawn == withdrawn_.end() ? Copy::kUsed : withdrawn->second;
  if (copy == Copy::kUsed && end_.ended) return absl::UnavailableError(end_status_.message());
  if (copy == Copy::kUsed) return false;
  withdrawn_.erase(withdrawn);
  if (copy == Copy::kLost) return absl::UnavailableError("the session of one who used the copy has ended");
  return true;
}

// ---- credits and leases ----

bool Session::SeekingLocked() const { return seek_pending_ || seeks_ > 0; }

bool Session::AnnounceLocked() const { return options_.announce && transport_ == "shm"; }

// Only those that wait already: who begins to at this moment looks again after kLook.
void Session::WakeForMakingLocked() {
  if (!queue_.empty() && queue_.front().leased) segment::WakeWaiters(queue_.front().batch->extent());
}

void Session::DropQueueLocked() {
  WakeForMakingLocked();
  for (const Item& item : queue_) {
    if (item.leased) ReleaseLocked(item.lease);
  }
  queue_.clear();
  queued_batches_ = 0;
}

// Without credits for now.
void Session::SeekLocked(const v1::Position& position) {
  DropQueueLocked();
  next_ = position;
  target_ = position;
  seek_pending_ = true;
  granted_ = 0;
  pending_credits_ = 0;
}

absl::Duration Session::GiveBackAfterLocked() const {
  if (!room_wanted_) return options_.give_back_after;
  return std::min(options_.give_back_after, std::clamp(kPauses * pause_, kLeastPause, kLongestPause));
}

void Session::GiveBackIfIdleLocked() {
  if (in_next_ > 0 || absl::Now() - asked_ < GiveBackAfterLocked()) return;
  if (!is_open_ || end_.ended || stopped_ || SeekingLocked()) return;
  const auto first = std::find_if(queue_.begin(), queue_.end(), [](const Item& item) { return item.batch != nullptr; });
  if (first != queue_.end() && first->leased && first->state() == BatchData::State::kSealed) SeekLocked(next_);
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
  WriteLocked(request_);
}

void Session::Write(v1::SessionRequest& request) {
  absl::MutexLock write(&write_mu_);
  if (!end().ended) WriteLocked(request);
}

// A broken stream or lane is the reader's to see.
void Session::WriteLocked(v1::SessionRequest& request) {
  request.set_number(++written_);
  if (by_lane_ && !(request.has_seek() && options_.open.plan().has_budget())) {
    (void)lane_->Send(request);
  } else {
    (void)stream_->Write(request);
  }
}

void Session::FillRequestLocked() {
  const auto fill = [this](auto* message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    message->set_credits(static_cast<uint32_t>(std::exchange(pending_credits_, 0)));
    const auto end = pending_releases_.begin() + std::min(pending_releases_.size(), kMostReleases);
    message->mutable_release()->Assign(pending_releases_.begin(), end);
    pending_releases_.erase(pending_releases_.begin(), end);
  };
  if (!std::exchange(seek_pending_, false)) {
    request_.mutable_advance()->set_announce(AnnounceLocked());
    return fill(request_.mutable_advance());
  }
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
      if (!lingering_ && pending_.WaitWithTimeout(&mu_, GiveBackAfterLocked())) GiveBackIfIdleLocked();
    }
  }
}

}  // namespace stoker::client
