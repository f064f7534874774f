// SPDX-License-Identifier: Apache-2.0
// The commands of stokerctl, one a file. Each adds itself to the command line; when it is the one asked for, its action
// runs after all options are read.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_join.h"
#include "client/ctl/output.h"
#include "stoker/client.h"

namespace stoker::ctl {

// What the commands share. Lives as long as the parsed command line.
struct Context {
  Output output;
  std::string socket;
  std::function<ExitCode()> action;  // of the command that was asked for

  absl::StatusOr<Client> Connect() const { return Client::Connect({.address = socket}); }
};

void AddHealth(CLI::App& app, Context& context);
void AddStatus(CLI::App& app, Context& context);
void AddDatasets(CLI::App& app, Context& context);
void AddIngest(CLI::App& app, Context& context);
void AddDrop(CLI::App& app, Context& context);
void AddRead(CLI::App& app, Context& context);
void AddPreview(CLI::App& app, Context& context);
void AddBench(CLI::App& app, Context& context);
void AddBenchClient(CLI::App& app, Context& context);  // hidden: a client process of `bench`

// A subcommand with an example under its help. `help` is one line.
CLI::App* AddCommand(CLI::App& app, const std::string& name, const std::string& help, const std::string& example);

// Turns a name of `values`, in any case, into its value; the help lists the names.
template <typename Value>
CLI::Validator OneOf(const std::map<std::string, Value>& values) {
  std::vector<std::string> names;
  for (const auto& [name, value] : values) names.push_back(name);
  return CLI::CheckedTransformer(values, CLI::ignore_case).description("{" + absl::StrJoin(names, ",") + "}");
}

// All of stokerctl: reads `arguments` (without the program's name), runs the command, returns the exit code.
// `terminal` says of both streams whether a person looks at them.
int Run(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err, bool out_is_terminal,
        bool err_is_terminal);

}  // namespace stoker::ctl
