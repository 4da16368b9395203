// The keys of one scenario, one on each line: a name and its values. model.py writes them.
#pragma once

#include <cstdint>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <vector>

using Ns = std::int64_t;
constexpr Ns NEVER = std::numeric_limits<Ns>::max();
using Ps = std::int64_t;
using Bytes = std::int64_t;
using Pages = std::int64_t;

constexpr Ns NS_PER_MS = 1'000'000, NS_PER_S = 1'000'000'000;
constexpr Ps PS_PER_NS = 1000;

class Keys {
  public:
    explicit Keys(const std::string &path) {
        std::ifstream file(path);
        for (std::string line; std::getline(file, line);) {
            const auto space = line.find(' ');
            if (space != std::string::npos)
                lines_.emplace(line.substr(0, space), line.substr(space + 1));
        }
    }

    std::int64_t whole(const std::string &name) const { return std::stoll(text(name)); }
    double real(const std::string &name) const { return std::stod(text(name)); }

    // The values of a key. None if the key is missing.
    std::vector<double> list(const std::string &name) const {
        std::vector<double> values;
        const auto line = lines_.find(name);
        std::istringstream words(line == lines_.end() ? "" : line->second);
        for (double value; words >> value;) values.push_back(value);
        return values;
    }

    // Each line of a key that may come several times.
    std::vector<std::string> all(const std::string &name) const {
        std::vector<std::string> found;
        for (auto [line, last] = lines_.equal_range(name); line != last; ++line)
            found.push_back(line->second);
        return found;
    }

  private:
    std::string text(const std::string &name) const { return lines_.find(name)->second; }

    std::multimap<std::string, std::string> lines_;
};
