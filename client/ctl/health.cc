// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "client/ctl/command.h"
#include "grpc/health/v1/health.pb.h"

namespace stoker::ctl {
namespace {

using grpc::health::v1::HealthCheckResponse;

ExitCode RunHealth(const Context& context, const std::string& service) {
  const absl::StatusOr<Client> client = context.Connect();
  if (!client.ok()) return Fail(context.output, "health", client.status());
  const absl::StatusOr<bool> serving = client->Health(service);
  if (!serving.ok()) return Fail(context.output, "health", serving.status());
  HealthCheckResponse answer;
  answer.set_status(*serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING);
  if (context.output.json) {
    PrintJson(context.output, answer);
  } else if (!context.output.quiet) {
    context.output.out << HealthCheckResponse::ServingStatus_Name(answer.status()) << std::endl;
  }
  return *serving ? kDone : kNo;
}

}  // namespace

void AddHealth(CLI::App& app, Context& context) {
  CLI::App* command = AddCommand(app, "health", "Whether the daemon serves: exit 0, else 1, or 3 where none answers",
                                 "stokerctl health && echo ready");
  auto service = std::make_shared<std::string>();
  command->add_option("service", *service, "A gRPC service, such as stoker.v1.Stoker (default: the daemon as a whole)");
  command->callback(
      [&context, service] { context.action = [&context, service] { return RunHealth(context, *service); }; });
}

}  // namespace stoker::ctl
