module switchyard.test/gohttp

go 1.24
