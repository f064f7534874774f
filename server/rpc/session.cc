// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/session.h"

#include <utility>

namespace stoker::rpc {

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
    return core_->OpenSession(self_, request_.open());
  }
  if (request_.has_advance() && opened_) return core_->AdvanceSession(self_, std::move(*request_.mutable_advance()));
  if (request_.has_seek() && opened_) return core_->SeekSession(self_, std::move(*request_.mutable_seek()));
  const bool shares = request_.has_claim() || request_.has_offer() || request_.has_withdraw();
  if (shares && opened_) return core_->ShareCopy(self_, std::move(request_));
  closed_ = true;
  if (opened_) core_->CloseSession(self_);
  Finish({grpc::StatusCode::INVALID_ARGUMENT, "session: the first message, and only that, must be Open"});
}

void Session::Close() {
  if (std::exchange(closed_, true) || !opened_) return;
  core_->CloseSession(self_);
}

void Session::Send(v1::SessionReply reply) {
  absl::MutexLock lock(&mutex_);
  if (finishing_) return;
  replies_.push_back(std::move(reply));
  if (!writing_) WriteOrFinish();
}

void Session::End(const absl::Status& reason) {
  v1::SessionReply reply;
  reply.mutable_failed()->set_code(static_cast<int>(reason.code()));
  reply.mutable_failed()->set_message(std::string(reason.message()));
  Send(std::move(reply));
  Finish(grpc::Status::OK);
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
