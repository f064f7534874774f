// SPDX-License-Identifier: Apache-2.0
#include "client/src/loader_impl.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shared/base/status_macros.h"

namespace stoker::client {
namespace {

constexpr absl::Duration kFirstBackoff = absl::Milliseconds(10);
constexpr absl::Duration kLongestBackoff = absl::Milliseconds(250);
constexpr absl::Duration kLook = absl::Milliseconds(20);  // whether the loader is closed

std::string HostName() {
  char name[256] = {};
  return ::gethostname(name, sizeof(name) - 1) == 0 ? name : "";
}

absl::Status Closed() { return absl::CancelledError("the loader is closed"); }

}  // namespace

LoaderImpl::LoaderImpl(std::shared_ptr<Connection> connection, const LoaderOptions& options)
    : connection_(std::move(connection)),
      options_(options),
      end_epoch_(options.epochs == 0 ? 0 : options.start.epoch() + options.epochs),
      segments_(SegmentCache::OfProcess()),
      position_(options.start) {}

absl::StatusOr<std::shared_ptr<LoaderImpl>> LoaderImpl::Open(std::shared_ptr<Connection> connection,
                                                             const LoaderOptions& options) {
  if (options.prefetch < LoaderOptions::kAutomaticPrefetch || options.prefetch > 65536) {
    return absl::InvalidArgumentError(absl::StrCat("prefetch ", options.prefetch, ": must be in [0, 65536]"));
  }
  if (options.give_back_after < absl::Milliseconds(10)) {
    return absl::InvalidArgumentError(
        absl::StrCat("give_back_after ", absl::FormatDuration(options.give_back_after), ": must be at least 10ms"));
  }
  if (options.epochs > UINT64_MAX - options.start.epoch()) {
    return absl::InvalidArgumentError(absl::StrCat("epochs ", options.epochs, ": too many"));
  }
  std::shared_ptr<LoaderImpl> loader(new LoaderImpl(std::move(connection), options));
  STOKER_ASSIGN_OR_RETURN(const std::shared_ptr<Session> session, loader->CurrentSession());
  absl::StatusOr<v1::SessionReply::Opened> opened = session->WaitOpened(loader->open_by_);
  if (!opened.ok()) return session->end().lost ? Annotate(opened.status(), loader->LostDaemon()) : opened.status();
  loader->info_ = *std::move(opened);
  loader->is_open_ = true;
  {
    absl::MutexLock lock(&loader->mu_);
    loader->steps_ = loader->info_.steps_per_epoch();
  }
  return loader;
}

// ---- reading ----

absl::StatusOr<std::optional<Batch>> LoaderImpl::Next(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    STOKER_RETURN_IF_ERROR(CheckMore());
    STOKER_ASSIGN_OR_RETURN(const std::shared_ptr<Session> session, CurrentSession());
    if (info_.steps_per_epoch() == 0) return Yield(session, {});
    absl::Status status = is_open_ ? absl::OkStatus() : AwaitOpen(*session, deadline);
    if (status.ok()) {
      absl::StatusOr<Session::Step> next = session->Next(deadline);
      if (next.ok()) return Yield(session, *std::move(next));
      status = next.status();
    }
    STOKER_RETURN_IF_ERROR(AfterError(session, status, deadline));
  }
}

std::optional<Batch> LoaderImpl::Yield(const std::shared_ptr<Session>& session, Session::Step next) {
  lost_since_ = absl::InfiniteFuture();
  if (careful_ > 0 && --careful_ == 0) session->SetPrefetch(options_.prefetch);
  absl::MutexLock lock(&mu_);
  if (next.batch == nullptr) {
    position_.set_epoch(position_.epoch() + 1);
    position_.set_step(0);
    steps_ = next.next_steps;
    return std::nullopt;
  }
  position_.set_step(next.batch->descriptor().step() + 1);
  return Batch(std::move(next.batch));
}

bool LoaderImpl::IsClosed() const {
  absl::MutexLock lock(&mu_);
  return closed_;
}

absl::Status LoaderImpl::CheckMore() const {
  absl::MutexLock lock(&mu_);
  if (end_epoch_ == 0 || position_.epoch() < end_epoch_ || closed_) return absl::OkStatus();
  return absl::OutOfRangeError(
      absl::StrCat("all ", options_.epochs, " epochs of ", options_.dataset, " are read: use SetEpoch or LoadState"));
}

v1::Position LoaderImpl::position() const {
  absl::MutexLock lock(&mu_);
  return position_;
}

uint64_t LoaderImpl::steps_per_epoch() const {
  absl::MutexLock lock(&mu_);
  return steps_;
}

// ---- sessions ----

absl::StatusOr<std::shared_ptr<Session>> LoaderImpl::CurrentSession() {
  absl::MutexLock lock(&mu_);
  if (closed_) return Closed();
  if (session_ != nullptr) return session_;
  SessionOptions session;
  session.open.set_dataset(options_.dataset);
  *session.open.mutable_recipe() = options_.recipe;
  *session.open.mutable_plan() = options_.plan;
  *session.open.mutable_position() = position_;
  session.open.set_pid(::getpid());
  session.open.set_host(HostName());
  session.open.set_store(info_.store());
  session.open.set_end_epoch(end_epoch_);
  session.prefetch = careful_ > 0 ? 0 : options_.prefetch;
  session.transport = options_.transport;
  session.announce = careful_ == 0;
  session.give_back_after = options_.give_back_after;
  STOKER_ASSIGN_OR_RETURN(session_, Session::Start(connection_, std::move(session), segments_));
  is_open_ = false;
  open_by_ = absl::Now() + options_.open_timeout;
  return session_;
}

absl::Status LoaderImpl::AwaitOpen(Session& session, absl::Time deadline) {
  STOKER_ASSIGN_OR_RETURN(const v1::SessionReply::Opened opened, session.WaitOpened(std::min(deadline, open_by_)));
  STOKER_RETURN_IF_ERROR(CheckUnchanged(opened));
  is_open_ = true;
  absl::MutexLock lock(&mu_);
  steps_ = opened.steps_per_epoch();
  return absl::OkStatus();
}

absl::Status LoaderImpl::CheckUnchanged(const v1::SessionReply::Opened& opened) const {
  if (opened.store() != info_.store()) {
    return absl::FailedPreconditionError(absl::StrCat("read ", options_.dataset, ": the data set is now of store ",
                                                      opened.store(), ", this loader reads ", info_.store(),
                                                      ": open a new one"));
  }
  if (opened.recipe_digest() != info_.recipe_digest() || opened.plan_digest() != info_.plan_digest() ||
      (!options_.plan.has_budget() && opened.steps_per_epoch() != info_.steps_per_epoch())) {
    return absl::FailedPreconditionError(
        absl::StrCat("read ", options_.dataset,
                     ": the daemon, maybe of another version, makes other batches of the same recipe and "
                     "plan: open a new loader"));
  }
  return absl::OkStatus();
}

absl::Status LoaderImpl::AfterError(const std::shared_ptr<Session>& session, const absl::Status& status,
                                    absl::Time deadline) {
  const Session::End end = session->end();
  const bool late = !is_open_ && absl::IsDeadlineExceeded(status) && absl::Now() >= open_by_;
  const bool refused = !end.ended && absl::IsFailedPrecondition(status);  // by CheckUnchanged
  if (!end.ended && !late && !refused) {                                  // the session can go on
    const bool reconnecting = lost_since_ != absl::InfiniteFuture() && absl::IsDeadlineExceeded(status);
    return reconnecting ? Annotate(status, LostDaemon()) : status;
  }
  DropSession();
  if (end.seeking) return absl::OkStatus();  // of another place than this, or perhaps
  const bool not_yet = end.ended && absl::IsFailedPrecondition(status) && !Serving();
  if (end.lost || late || not_yet) return WaitForDaemon(status, deadline);
  if (end.dropped == 0) return status;
  // The batch that failed comes after some that are good. They are read again, one by one up to the failure.
  careful_ = end.dropped + 1;
  return absl::OkStatus();
}

std::string LoaderImpl::LostDaemon() const {
  return absl::StrCat("read ", options_.dataset, ": lost the daemon at ", connection_->address());
}

absl::Status LoaderImpl::WaitForDaemon(const absl::Status& reason, absl::Time deadline) {
  const absl::Time now = absl::Now();
  if (lost_since_ == absl::InfiniteFuture()) {
    lost_since_ = now;
    backoff_ = absl::ZeroDuration();
  }
  if (now - lost_since_ >= options_.reconnect_timeout) {
    const absl::Duration waited = std::exchange(lost_since_, absl::InfiniteFuture()) - now;
    return absl::UnavailableError(absl::StrCat(LostDaemon(), " and had no other for ", absl::FormatDuration(-waited),
                                               " (", reason.message(), "): start it, then call Next again"));
  }
  const absl::Time until = std::min(now + backoff_, deadline);
  if (connection_->AwaitReady(now)) {  // to a daemon that starts or ends
    absl::MutexLock lock(&mu_);
    if (!closed_) closing_.WaitWithDeadline(&mu_, until);
  } else {
    while (!IsClosed() && absl::Now() < until && !connection_->AwaitReady(std::min(until, absl::Now() + kLook))) {
    }
  }
  if (IsClosed()) return Closed();
  if (absl::Now() >= deadline)
    return absl::DeadlineExceededError(absl::StrCat(LostDaemon(), " (", reason.message(), ")"));
  backoff_ = std::min(std::max(2 * backoff_, kFirstBackoff), kLongestBackoff);
  return absl::OkStatus();
}

bool LoaderImpl::Serving() const {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + connection_->timeout()));
  v1::StatusReply reply;
  return connection_->stoker().GetStatus(&context, v1::StatusRequest(), &reply).ok() &&
         reply.state() == v1::StatusReply::SERVING;
}

void LoaderImpl::DropSession() {
  std::shared_ptr<Session> session;
  {
    absl::MutexLock lock(&mu_);
    session = std::move(session_);
    session_ = nullptr;
    if (session == nullptr) return;
    if (const std::string transport = session->transport(); transport != "none") {
      transport_ = transport;
      notice_ = session->notice();
    }
  }
  session->Stop();
}

// ---- moving, and the end ----

// Within the session, if there is one. A careful one is dropped, for it asks for too little.
void LoaderImpl::JumpTo(const v1::Position& position) {
  lost_since_ = absl::InfiniteFuture();
  if (std::exchange(careful_, 0) > 0) DropSession();
  std::shared_ptr<Session> session;
  {
    absl::MutexLock lock(&mu_);
    position_ = position;
    session = session_;
  }
  if (session == nullptr) return;
  if (!session->Seek(position)) return DropSession();
  if (options_.plan.has_budget()) is_open_ = false;  // until it is there: epochs differ in steps
  open_by_ = absl::Now() + options_.open_timeout;
}

// With a budget only the daemon knows how many steps the epoch has, and whether there is such a step.
absl::Status LoaderImpl::MoveTo(const v1::Position& position) {
  const v1::Position before = this->position();
  if (!options_.plan.has_budget()) {
    JumpTo(position);
    return absl::OkStatus();
  }
  // A session that is refused a place is over, and its leases with it: there let another one ask.
  if (position.step() > (position.epoch() == before.epoch() ? steps_per_epoch() : 0)) DropSession();
  JumpTo(position);
  absl::Status status = AwaitPlace();
  if (status.ok()) return status;
  DropSession();
  JumpTo(before);
  return status;
}

absl::Status LoaderImpl::AwaitPlace() {
  while (true) {
    STOKER_ASSIGN_OR_RETURN(const std::shared_ptr<Session> session, CurrentSession());
    const absl::Status status = AwaitOpen(*session, open_by_);
    if (status.ok()) lost_since_ = absl::InfiniteFuture();
    if (status.ok() || !session->end().ended) return status;
    STOKER_RETURN_IF_ERROR(AfterError(session, status, absl::InfiniteFuture()));
  }
}

absl::Status LoaderImpl::SetEpoch(uint64_t epoch) {
  if (end_epoch_ > 0 && epoch >= end_epoch_) {
    return absl::OutOfRangeError(absl::StrCat("set epoch ", epoch, ": this loader ends before epoch ", end_epoch_));
  }
  const v1::Position now = position();
  if (now.epoch() == epoch && now.step() == 0) return absl::OkStatus();
  v1::Position position;
  position.set_epoch(epoch);
  return MoveTo(position);
}

LoaderState LoaderImpl::StateAt(const v1::Position& position) const {
  return {options_.dataset,          info_.store(), info_.recipe_digest(),    info_.plan_digest(),
          NormalPlan(options_.plan), position,      BudgetText(options_.plan)};
}

std::string LoaderImpl::SaveState(const v1::Position& at) const { return FormatState(StateAt(at)); }

absl::Status LoaderImpl::LoadState(absl::string_view json) {
  STOKER_ASSIGN_OR_RETURN(const LoaderState state, ParseState(json));
  STOKER_RETURN_IF_ERROR(CheckSameBatches(state, StateAt(state.position)));
  if (!options_.plan.has_budget() && state.position.step() > info_.steps_per_epoch()) {
    return absl::InvalidArgumentError(absl::StrCat("load state: step ", state.position.step(), " of an epoch of ",
                                                   info_.steps_per_epoch(), " steps"));
  }
  const v1::Position now = position();
  if (now.epoch() == state.position.epoch() && now.step() == state.position.step()) return absl::OkStatus();
  return MoveTo(state.position);
}

std::string LoaderImpl::transport() const {
  absl::MutexLock lock(&mu_);
  const std::string now = session_ == nullptr ? "none" : session_->transport();
  return now == "none" ? transport_ : now;
}

std::string LoaderImpl::notice() const {
  absl::MutexLock lock(&mu_);
  const bool known = session_ != nullptr && session_->transport() != "none";
  return known ? session_->notice() : notice_;
}

bool LoaderImpl::Pause() {
  {
    absl::MutexLock lock(&mu_);
    if (session_ != nullptr && session_->held() > 0) return false;
  }
  DropSession();
  return true;
}

void LoaderImpl::Close() {
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
    closing_.SignalAll();
  }
  DropSession();
}

}  // namespace stoker::client
