// EXPECT: was not declared
int main() { return nothing; }
