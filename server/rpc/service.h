// SPDX-License-Identifier: Apache-2.0
// The gRPC face of the daemon: translates, decides nothing. Blocking handlers run on gRPC's threads.
#pragma once

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/rpc/calls.h"
#include "server/rpc/core.h"
#include "stoker/v1/service.grpc.pb.h"

namespace stoker::rpc {

// Same code, for the two enumerations are one; same message, but for the middle of one beyond 2000 bytes.
grpc::Status ToGrpc(const absl::Status& status);

class Service final : public v1::Stoker::WithCallbackMethod_Session<v1::Stoker::Service> {
 public:
  explicit Service(Core* core) : core_(core) {}

  // Until no call is in flight, though ended ones may still be sending their status; false: at the deadline some were.
  bool AwaitNoCalls(absl::Time deadline) { return calls_.AwaitNone(deadline); }

  grpc::Status GetStatus(grpc::ServerContext* context, const v1::StatusRequest* request,
                         v1::StatusReply* reply) override;
  grpc::Status WatchStatus(grpc::ServerContext* context, const v1::StatusRequest* request,
                           grpc::ServerWriter<v1::StatusReply>* writer) override;
  grpc::Status Ingest(grpc::ServerContext* context, const v1::IngestRequest* request,
                      grpc::ServerWriter<v1::IngestEvent>* writer) override;
  grpc::Status ListDatasets(grpc::ServerContext* context, const v1::ListDatasetsRequest* request,
                            v1::ListDatasetsReply* reply) override;
  grpc::Status DropDataset(grpc::ServerContext* context, const v1::DropDatasetRequest* request,
                           v1::DropDatasetReply* reply) override;
  grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionReply>* Session(grpc::CallbackServerContext* context) override;
  grpc::Status Fetch(grpc::ServerContext* context, const v1::FetchRequest* request,
                     grpc::ServerWriter<v1::FetchChunk>* writer) override;

 private:
  Core* const core_;
  Calls calls_;
};

}  // namespace stoker::rpc
