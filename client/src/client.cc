// SPDX-License-Identifier: Apache-2.0
#include "stoker/client.h"

#include <algorithm>
#include <utility>

#include "client/src/connection.h"
#include "client/src/grpc_status.h"
#include "client/src/loader_impl.h"
#include "shared/base/status_macros.h"

namespace stoker {
namespace {

using client::ToStatus;

// Before a call, which would fail at once while gRPC waits to connect to a daemon that was started again.
void Reconnect(const client::Connection& connection) {
  constexpr absl::Duration kEnough = absl::Milliseconds(500);
  (void)connection.AwaitReady(absl::Now() + std::min(kEnough, connection.timeout()));
}

// A call that ends by the connection's timeout.
void Begin(grpc::ClientContext* context, const client::Connection& connection) {
  Reconnect(connection);
  context->set_deadline(absl::ToChronoTime(absl::Now() + connection.timeout()));
}

}  // namespace

void Cancellation::Cancel() {
  absl::MutexLock lock(&mu_);
  cancelled_ = true;
  if (stop_) stop_();
}

void Cancellation::Attach(std::function<void()> stop) {
  absl::MutexLock lock(&mu_);
  stop_ = std::move(stop);
  if (cancelled_) stop_();
}

void Cancellation::Detach() {
  absl::MutexLock lock(&mu_);
  stop_ = nullptr;
}

Client::Client(std::shared_ptr<client::Connection> connection) : connection_(std::move(connection)) {}

absl::StatusOr<Client> Client::Connect(const ConnectOptions& options) {
  STOKER_ASSIGN_OR_RETURN(std::shared_ptr<client::Connection> connection, client::Connection::Connect(options));
  return Client(std::move(connection));
}

const std::string& Client::address() const { return connection_->address(); }

absl::StatusOr<bool> Client::Health(absl::string_view service) const {
  grpc::ClientContext context;
  Begin(&context, *connection_);
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(std::string(service));
  grpc::health::v1::HealthCheckResponse reply;
  const absl::Status status = ToStatus(connection_->health().Check(&context, request, &reply));
  if (absl::IsNotFound(status)) {
    return absl::NotFoundError(absl::StrCat("health: the daemon has no service \"", service, "\""));
  }
  STOKER_RETURN_IF_ERROR(status);
  return reply.status() == grpc::health::v1::HealthCheckResponse::SERVING;
}

absl::StatusOr<v1::StatusReply> Client::GetStatus() const {
  grpc::ClientContext context;
  Begin(&context, *connection_);
  v1::StatusReply reply;
  STOKER_RETURN_IF_ERROR(ToStatus(connection_->stoker().GetStatus(&context, v1::StatusRequest(), &reply)));
  return reply;
}

absl::Status Client::WatchStatus(absl::Duration interval,
                                 const std::function<bool(const v1::StatusReply&)>& callback) const {
  Reconnect(*connection_);
  grpc::ClientContext context;
  v1::StatusRequest request;
  request.set_interval_seconds(absl::ToDoubleSeconds(interval));
  const auto reader = connection_->stoker().WatchStatus(&context, request);
  v1::StatusReply reply;
  while (reader->Read(&reply)) {
    if (callback(reply)) continue;
    context.TryCancel();
    (void)reader->Finish();  // says that we cancelled it
    return absl::OkStatus();
  }
  const absl::Status status = ToStatus(reader->Finish());
  return status.ok() ? absl::UnavailableError("watch status: the daemon ended the stream") : status;
}

absl::StatusOr<v1::IngestEvent::Done> Client::Ingest(
    const v1::IngestRequest& request, const std::function<void(const v1::IngestEvent::Progress&)>& progress,
    Cancellation* cancellation) const {
  Reconnect(*connection_);
  grpc::ClientContext context;
  if (cancellation != nullptr) cancellation->Attach([&context] { context.TryCancel(); });
  const auto reader = connection_->stoker().Ingest(&context, request);
  v1::IngestEvent event;
  std::optional<v1::IngestEvent::Done> done;
  while (reader->Read(&event)) {
    if (event.has_progress() && progress) progress(event.progress());
    if (event.has_done()) done = std::move(*event.mutable_done());
  }
  const absl::Status status = ToStatus(reader->Finish());
  if (cancellation != nullptr) cancellation->Detach();
  STOKER_RETURN_IF_ERROR(status);
  if (!done.has_value()) return absl::InternalError("ingest: the daemon ended the call without a result");
  return *std::move(done);
}

absl::StatusOr<std::vector<v1::DatasetInfo>> Client::Datasets(absl::string_view name) const {
  grpc::ClientContext context;
  Begin(&context, *connection_);
  v1::ListDatasetsRequest request;
  request.set_name(std::string(name));
  v1::ListDatasetsReply reply;
  STOKER_RETURN_IF_ERROR(ToStatus(connection_->stoker().ListDatasets(&context, request, &reply)));
  return std::vector<v1::DatasetInfo>(reply.datasets().begin(), reply.datasets().end());
}

absl::StatusOr<v1::DropDatasetReply> Client::Drop(absl::string_view name) const {
  grpc::ClientContext context;
  Begin(&context, *connection_);
  v1::DropDatasetRequest request;
  request.set_name(std::string(name));
  v1::DropDatasetReply reply;
  STOKER_RETURN_IF_ERROR(ToStatus(connection_->stoker().DropDataset(&context, request, &reply)));
  return reply;
}

absl::StatusOr<Loader> Client::Open(const LoaderOptions& options) const {
  Reconnect(*connection_);
  STOKER_ASSIGN_OR_RETURN(std::shared_ptr<client::LoaderImpl> loader, client::LoaderImpl::Open(connection_, options));
  return Loader(std::move(loader));
}

}  // namespace stoker
