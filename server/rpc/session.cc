// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/session.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace stoker::rpc {
namespace {

// A client has few under way, for it waits for batches.
constexpr size_t kMostTooEarly = 1024;

bool IsKnown(const v1::SessionRequest& request) {
  return request.has_advance() || request.has_seek() || request.has_claim() || request.has_offer() ||
         request.has_withdraw();
}

}  // namespace

grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionReply>* Session::Start(Core* core, Calls* calls) {
  const std::shared_ptr<Session> session(new Session(core, calls));
  session->self_ = session;
  session->StartRead(&session->request_);
  return session.get();
}

void Session::OnReadDone(bool ok) {
  if (!ok) {  // the client has finished, or is gone
    Close();
    Finish(grpc::Status::OK);
    return;
  }
  Handle();
  if (!closed_) StartRead(&request_);
}

void Session::Handle() {
  if (request_.has_open() && !opened_) {
    opened_ = true;
    plans_epochs_ = request_.open().plan().has_budget();
    return core_->OpenSession(self_, request_.open());
  }
  if (IsKnown(request_) && opened_) return core_->HandleRequest(self_, std::move(request_));
  closed_ = true;
  if (opened_) core_->CloseSession(self_);
  Finish({grpc::StatusCode::INVALID_ARGUMENT, "session: the first message, and only that, must be Open"});
}

void Session::Close() {
  if (std::exchange(closed_, true) || !opened_) return;
  core_->CloseSession(self_);
}

void Session::Send(v1::SessionReply reply) {
  if (lane_ != nullptr) return lane_->Send(std::move(reply));
  SendByStream(std::move(reply));
}

void Session::SendByStream(v1::SessionReply reply) {
  absl::MutexLock lock(&mutex_);
  if (finishing_) return;
  ++stream_replies_;
  replies_.push_back(std::move(reply));
  if (!writing_) WriteOrFinish();
}

void Session::End(const absl::Status& reason) {
  Detach();
  v1::SessionReply reply;
  reply.mutable_failed()->set_code(static_cast<int>(reason.code()));
  reply.mutable_failed()->set_message(std::string(reason.message()));
  SendByStream(std::move(reply));
  Finish(grpc::Status::OK);
}

void Session::Attach(std::shared_ptr<Lane> lane) {
  v1::SessionReply reply;
  {
    absl::MutexLock lock(&mutex_);
    if (lane_ != nullptr || finishing_) return;
    reply.mutable_attached()->set_stream_replies(stream_replies_);
  }
  lane_ = std::move(lane);
  lane_->Start([this](v1::SessionRequest request) { HandleLane(std::move(request)); },
               [this](const absl::Status& reason) { End(reason); });
  lane_->Send(std::move(reply));
}

void Session::Detach() {
  if (lane_ == nullptr) return;
  lane_->Close();
  lane_ = nullptr;
}

void Session::HandleLane(v1::SessionRequest request) {
  if (!IsKnown(request) || (request.has_seek() && plans_epochs_) || request.number() == 0) {
    return End(absl::InvalidArgumentError(
        "lane: what came is Open, or Seek in a plan by budget, or nothing known, or has no number"));
  }
  const uint64_t number = request.number();
  InOrder(number, [this, request = std::move(request)] { core_->HandleOnLoop(this, request); });
}

void Session::InOrder(uint64_t number, std::function<void()> handle) {
  if (number == 0) return handle();
  if (number < next_number_ || too_early_.size() >= kMostTooEarly) {
    return End(absl::InvalidArgumentError(absl::StrCat("number: ", number, ", expected was ", next_number_)));
  }
  if (number > next_number_) {
    too_early_[number] = std::move(handle);
    return;
  }
  ++next_number_;
  handle();
  while (!too_early_.empty() && too_early_.begin()->first == next_number_) {
    const auto next = too_early_.extract(too_early_.begin());
    ++next_number_;
    next.mapped()();
  }
}

void Session::Finish(const grpc::Status& status) {
  absl::MutexLock lock(&mutex_);
  if (std::exchange(finishing_, true)) return;
  final_status_ = status;
  if (!writing_) WriteOrFinish();
}

void Session::WriteOrFinish() {
  if (!replies_.empty()) {
    writing_ = true;
    StartWrite(&replies_.front());
  } else if (finishing_ && !std::exchange(finished_, true)) {
    ServerBidiReactor::Finish(final_status_);
  }
}

void Session::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mutex_);
  writing_ = false;
  if (ok) {
    replies_.pop_front();
  } else {
    replies_.clear();  // nobody reads any more
    finishing_ = true;
  }
  WriteOrFinish();
}

// A client that is gone shows as a failed read as well; that is where the session is closed.
void Session::OnCancel() { Finish(grpc::Status::CANCELLED); }

void Session::OnDone() {
  Close();
  call_.reset();
  const std::shared_ptr<Session> self = std::move(self_);
}

}  // namespace stoker::rpc
